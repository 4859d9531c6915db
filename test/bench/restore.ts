/**
 * How long after the decision that a VM is to run here it runs, whatever its size. VM of 256 MB, 1 GB and 4 GB with half of it
 * in use (`load.c`), which write to 8 MiB of it at 1,000 pages a second; images in the shards of five hosts, each a process
 * with a store on disk (`restore-host.ts`), one of which is killed before anything is restored: the one that the VM ran on.
 * Another one restores it again and again, in every way by turns:
 *
 *   plain        as an image without a working set
 *   working set  with what the image says of it, which it has from one restore before on the VM's own host, and of three cuts
 *   standby      on a copy of its RAM that is there, with a QEMU that waits
 *
 * and beside them, from the same image in a local file, QEMU's `-incoming` and `loadvm`. How long pages take that the VM waits for
 * is seen in a round more of each way, whose times do not count otherwise: but for all pages of the largest VM.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { UsageError } from '../../node/errors.ts'
import { goFirst } from '../../node/host/priority.ts'
import { note } from '../measure.ts'
import { watchOthers } from './processor.ts'
import { RestoreHosts } from './restore-hosts.ts'
import { checksOf, SIZES_MIB, type Round, type SizeSeen, tableOf, WAYS } from './restore-judge.ts'
import { measureIncoming, measureLoadvm } from './restore-local.ts'
import type { Completed, ImageName, Way } from './restore-vm.ts'
import type { Measured, OptionValues } from './list.ts'

const ROUNDS = 5
/** Of larger VMs only the round that is looked at waits for the last page. */
const COMPLETE_MIB = 1_024
/** Where nobody waits for the last page. */
const LOOK_ON_MS = 1_000
/** 64 bytes each, over 8 MiB. */
const LOAD = 'write 1000 64 2048'
/** For the load to go once over what it writes to, before the cut and after. */
const LOAD_MS = 3_000
/** Of larger VMs not every round has a standby copy: to make one takes as long as to restore all. */
const LARGE_STANDBY_ROUNDS = 3
/** When a restored VM is cut: its working set is settled. */
const LEARNING_CUTS = 2
const LOCAL_ROUNDS = 3
/** Until a thread and a tracker wait for the next restore again, as in a peer that restores now and then. */
const REST_MS = 6_500

type Host = ReturnType<RestoreHosts['calls']>

interface Setup {
  readonly sizes: readonly number[]
  readonly rounds: number
}

export async function measureRestore(progress: (line: string) => void, options: OptionValues): Promise<Measured> {
  const setup = readSetup(options)
  goFirst() // as a peer does, whose QEMU inherits it: what is compared with it must not come after other programs
  const others = watchOthers()
  const seen: SizeSeen[] = []
  let accel = ''
  for (const memoryMiB of setup.sizes) {
    const found = await measureSize(memoryMiB, setup.rounds, progress)
    seen.push(found.size)
    accel = found.accel
  }
  const checks = [...checksOf(seen), note('processors taken by other programs', others())]
  return { checks, accel, details: { options: setup, sizes: seen }, text: tableOf(seen) }
}

function readSetup({ sizes = SIZES_MIB.join(','), rounds = `${ROUNDS}` }: OptionValues): Setup {
  const all = sizes.split(',')
  if (!all.every(size => /^\d{3,5}$/.test(size)))
    throw new UsageError('BENCH_USAGE', `--sizes takes MiB, from 100 on, with commas, not ${JSON.stringify(sizes)}`)
  if (!/^[1-9]\d?$/.test(rounds))
    throw new UsageError('BENCH_USAGE', `--rounds takes a whole number from 1 to 99, not ${JSON.stringify(rounds)}`)
  return { sizes: all.map(Number), rounds: Number(rounds) }
}

async function measureSize(memoryMiB: number, rounds: number, progress: (line: string) => void) {
  const tell = (line: string) => progress(`${memoryMiB} MiB: ${line}`)
  tell('starting five hosts and the VM')
  const hosts = await RestoreHosts.start({ memoryMiB, fillMiB: memoryMiB / 2 })
  try {
    const [owner, survivor] = [hosts.calls(0), hosts.calls(1)]
    const { accel, spec } = await owner.call('boot', undefined)
    tell('the image')
    const { hash, epoch } = await makeImage(owner)
    await hosts.kill(0)
    const found = await measureRounds(survivor, { hash, epoch }, { memoryMiB, rounds }, tell)
    const image = { accel, spec, folder: hosts.folder, streamPath: join(hosts.folder, 'image') }
    tell('the image as a file')
    await survivor.call('exportTo', { hash, path: image.streamPath })
    tell('-incoming')
    const incoming = await measureIncoming(image, Math.min(rounds, LOCAL_ROUNDS))
    tell('loadvm')
    const loadvm = await measureLoadvm(image, Math.min(rounds, LOCAL_ROUNDS))
    return { accel, size: { memoryMiB, ...found, incoming, loadvm } }
  } finally {
    await hosts.stop()
  }
}

async function measureRounds(
  host: Host,
  image: ImageName,
  { memoryMiB, rounds }: { memoryMiB: number; rounds: number },
  tell: (line: string) => void
): Promise<Pick<SizeSeen, 'rounds' | 'looked'>> {
  const found: Record<Way, Round[]> = { plain: [], 'working set': [], standby: [] }
  const looked: Partial<Record<Way, Round>> = {}
  const large = memoryMiB > COMPLETE_MIB
  for (let round = 0; round <= rounds; round++) {
    const look = round === 0
    for (const way of WAYS) {
      if (way === 'standby' && (look || (large && round > LARGE_STANDBY_ROUNDS))) continue
      const seen = await restored(host, { ...image, way, look }, look || !large)
      if (look) looked[way] = seen
      else found[way].push(seen)
      tell(`${way}, ${look ? 'looked at' : `${round}/${rounds}`}: ${roundText(seen)}`)
    }
  }
  return { rounds: found, looked }
}

/** Of a VM that has been restored once, on its own host. */
async function makeImage(owner: Host): Promise<ImageName> {
  await owner.call('tell', LOAD)
  await sleep(LOAD_MS)
  let image = await owner.call('cut', undefined)
  await owner.call('end', undefined)
  await restored(owner, { ...image, way: 'working set', look: false }, true, false)
  for (let cut = 0; cut < LEARNING_CUTS; cut++) {
    await sleep(LOAD_MS)
    image = await owner.call('cut', undefined)
  }
  return image
}

async function restored(
  host: Host,
  { look, ...image }: ImageName & { readonly way: Way; readonly look: boolean },
  complete: boolean,
  end = true
): Promise<Round> {
  if (image.way === 'standby') await host.call('standBy', { hash: image.hash, epoch: image.epoch })
  const resumed = await host.call('resume', { ...image, question: 'status', look: look ? 'faults' : 'no' })
  let completed: Completed | undefined
  if (complete) completed = await host.call('complete', undefined)
  else await sleep(LOOK_ON_MS)
  if (end) {
    await host.call('end', undefined)
    await sleep(REST_MS)
  }
  return { ...resumed, completed }
}

function roundText({ runMs, answerMs, bytesBefore, completed }: Round): string {
  const ms = (value: number) => `${Math.round(value)} ms`
  const rest = completed && `, all pages ${ms(completed.completeMs)}, ${completed.pagesFaulted} faults`
  return `runs after ${ms(runMs)} and ${(bytesBefore / 1e6).toFixed(1)} MB, answers after ${ms(answerMs)}${rest ?? ''}`
}
