/**
 * A host that serves pages is killed with -9 in the middle of a restore, round after round: is the VM there all the same, and
 * is its RAM what it was at the cut? Five hosts as in `restore` (processes with stores on disk), of which the VM's own has died
 * already, so that none of m = 2 may be lost after that. As soon as it runs the guest is asked for a hash of what it has
 * filled, half of its RAM: so it wants pages all through the restore. Each round is judged twice:
 *
 *   all of RAM, as QEMU was given it page by page (`restore-delivered.ts`), against RAM as it was in the pause of the cut
 *   the guest's own hash, as it sees its memory while it runs, against the one before the cut
 *
 * At the end one more is killed than may be: the restore must say so, and the image be there when a host is back.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { messageOf, UsageError } from '../../node/errors.ts'
import { generator } from '../sim/kernel.ts'
import { atLeast, type Check, equal, note } from '../measure.ts'
import type { Measured, OptionValues } from './list.ts'
import { RestoreHosts } from './restore-hosts.ts'
import type { Answer, Completed, CutTaken, Resumed, VmSize } from './restore-vm.ts'

const SIZE: VmSize = { memoryMiB: 256, fillMiB: 128 }
const ROUNDS = 50
/** Hosts: 0 had the VM, 1 restores it, the others serve. */
const [OWNER, RESTORER] = [0, 1]
const SERVERS = [2, 3, 4]
/** A kill that comes when all is there shows nothing, and is tried again; so often at most, for each round. */
const TRIES = 4
/** Part of the last restore's time within which a host is killed: less than all, as times differ. */
const PART = 0.9

export interface SourceRound {
  readonly number: number
  readonly killed: number
  /** Since the decision. */
  readonly killedAtMs: number
  readonly runMs: number
  readonly completeMs: number
  readonly answerMs: number
  readonly pagesFaulted: number
  /** What is wrong; empty: nothing. */
  readonly faults: readonly string[]
}

interface Image extends CutTaken {
  readonly hash: string
  /** Of the guest's memory, as it saw it before the cut. */
  readonly sum: Answer
}

interface Beyond {
  /** What the restore said where too few were left. */
  readonly error: string
  readonly restoredAfterwards: boolean
}

export async function measureSources(progress: (line: string) => void, options: OptionValues): Promise<Measured> {
  const rounds = readRounds(options)
  progress('starting five hosts and the VM')
  const hosts = await RestoreHosts.start(SIZE)
  try {
    const owner = hosts.calls(OWNER)
    const { accel } = await owner.call('boot', undefined)
    const sum = await owner.call('tell', 'sum')
    const image: Image = { ...(await owner.call('cut', undefined)), sum }
    await hosts.kill(OWNER)
    const { seen, lost } = await killAndRestore(hosts, image, rounds, progress)
    const beyond = await loseTooMany(hosts, image)
    progress(`with too few left: ${beyond.error}`)
    const details = { size: SIZE, seen, lost, beyond }
    return { accel, checks: checksOf(rounds, seen, lost, beyond), details, text: lost }
  } finally {
    await hosts.stop()
  }
}

function readRounds({ rounds = `${ROUNDS}` }: OptionValues): number {
  if (/^[1-9]\d{0,3}$/.test(rounds)) return Number(rounds)
  throw new UsageError('BENCH_USAGE', `--rounds takes a whole number from 1 to 9999, not ${JSON.stringify(rounds)}`)
}

async function killAndRestore(
  hosts: RestoreHosts,
  image: Image,
  rounds: number,
  progress: (line: string) => void
): Promise<{ seen: SourceRound[]; lost: string[] }> {
  const random = generator(1)
  const undisturbed = await restored(hosts, image)
  const first = faultsOf(image, undisturbed)
  if (first.length > 0) throw new Error(`the image is not restored although nobody dies: ${first.join('; ')}`)
  let within = undisturbed.completeMs * PART
  const [seen, lost]: [SourceRound[], string[]] = [[], []]
  for (let number = 1, tries = 0; number <= rounds && tries < rounds * TRIES; tries++) {
    const killed = SERVERS[tries % SERVERS.length] ?? RESTORER
    try {
      const round = await killInRestore(hosts, image, { number, killed, killMs: random() * within })
      if (round.killedAtMs < round.completeMs) {
        seen.push(round)
        number++
      }
      within = round.completeMs * PART // other work comes and goes
      progress(roundText(round, rounds))
    } catch (error) {
      lost.push(`round ${number}, host ${killed}: ${messageOf(error)}`)
      progress(lost.at(-1) ?? '')
      number++
      await hosts.calls(RESTORER).call('end', undefined)
    }
    if (!hosts.runs(killed)) await hosts.startAgain(killed)
  }
  return { seen, lost }
}

async function killInRestore(
  hosts: RestoreHosts,
  image: Image,
  { number, killed, killMs }: { number: number; killed: number; killMs: number }
): Promise<SourceRound> {
  const fromMs = performance.now()
  const restoring = restored(hosts, image)
  restoring.catch(() => {}) // awaited below
  await sleep(killMs)
  const killedAtMs = performance.now() - fromMs
  await hosts.kill(killed)
  const found = await restoring
  const { runMs, completeMs, answerMs, pagesFaulted } = found
  const faults = faultsOf(image, found)
  return { number, killed, killedAtMs, runMs, completeMs, answerMs, pagesFaulted, faults }
}

/** Until all is there and the guest has answered; then the VM is ended. */
async function restored(hosts: RestoreHosts, { hash, epoch }: Image): Promise<Resumed & Completed> {
  const host = hosts.calls(RESTORER)
  const resumed = await host.call('resume', { hash, epoch, question: 'sum', way: 'working set', look: 'ram' })
  const completed = await host.call('complete', undefined)
  await host.call('end', undefined)
  return { ...resumed, ...completed }
}

function faultsOf({ ramHash, sum }: Image, { answer, delivered }: Resumed & Completed): string[] {
  return [
    ...(answer.hash === sum.hash && answer.pages === sum.pages ? [] : ['the guest sees other memory than before']),
    ...(delivered?.ramHash === ramHash ? [] : ['QEMU was given other RAM than there was at the cut']),
    ...(delivered?.missing === 0 ? [] : [`QEMU was not given ${delivered?.missing ?? 'any'} pages`])
  ]
}

/** Two at once, and the VM's own host before: three of five, where two may be lost. */
async function loseTooMany(hosts: RestoreHosts, image: Image): Promise<Beyond> {
  const [one = 0, other = 0] = SERVERS
  await Promise.all([hosts.kill(one), hosts.kill(other)])
  let error = ''
  try {
    await restored(hosts, image)
  } catch (reason) {
    error = messageOf(reason)
  }
  await hosts.calls(RESTORER).call('end', undefined)
  await hosts.startAgain(one)
  return { error, restoredAfterwards: faultsOf(image, await restored(hosts, image)).length === 0 }
}

function roundText({ number, killed, faults, ...times }: SourceRound, rounds: number): string {
  const { killedAtMs, runMs, answerMs, completeMs, pagesFaulted } = times
  const ms = Object.entries({ killed: killedAtMs, runs: runMs, answers: answerMs, 'all pages': completeMs })
  const late = killedAtMs < completeMs ? '' : ', TOO LATE'
  const what = faults.length === 0 ? 'ok' : faults.join('; ').toUpperCase()
  return `${number}/${rounds}, host ${killed}: ${ms.map(([name, value]) => `${name} ${Math.round(value)}`).join(', ')} ms, ${pagesFaulted} faults: ${what}${late}`
}

function checksOf(rounds: number, seen: readonly SourceRound[], lost: readonly string[], beyond: Beyond): Check[] {
  const early = seen.filter(({ killedAtMs, runMs }) => killedAtMs < runMs).length
  return [
    equal('VMs resumed whose source was killed', seen.length, rounds),
    equal('restores that failed', lost.length, 0),
    equal(
      'RAM as it was at the cut, and as the guest sees it',
      seen.filter(({ faults }) => faults.length === 0).length,
      rounds
    ),
    note('killed before the VM ran', early),
    atLeast('killed while it ran', seen.length - early, rounds > 1 ? 1 : 0, ''),
    note(
      'pages the guests waited for',
      seen.reduce((sum, { pagesFaulted }) => sum + pagesFaulted, 0)
    ),
    equal('too few left: the restore says so', beyond.error !== '', true),
    equal('too few left: restored when one is back', beyond.restoredAfterwards, true)
  ]
}
