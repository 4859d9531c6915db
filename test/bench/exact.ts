/**
 * Is a dirty image RAM, byte for byte? Two real VMs of two processors each write memory, use their disks and send each other
 * money. One of them is cut again and again; at each cut the image, as its streams have it, is compared with the whole RAM
 * file as it was while the VM stood still. The copy is carried on from image to image and not made anew, as a restore of the
 * last image alone would not show a page that an earlier one lacked and a later one brought.
 */
import { UsageError } from '../../node/errors.ts'
import type { PageRanges } from '../../node/ports.ts'
import { differentPages, OneHost, type OneVm } from '../contract/one-vm.ts'
import { bankVm, buildGuest } from '../guest/build.ts'
import { parseConsole } from '../guest/console.ts'
import { atLeast, atMost, equal, note } from '../measure.ts'
import { ImageCopy } from './exact-copy.ts'
import type { Measured, OptionValues } from './list.ts'

const CUTS = 500
const MEMORY_MIB = 128
const CPUS = 2
const LOAD = { dirtyPagesPerSecond: 3_000, dirtyMiB: 32, intervalUs: 2_000, burst: 8, diskBlocksPerSecond: 200 }
const DISKS = [{ sizeMiB: 64 }]
/** A VM that writes less between two cuts, or moves no money, shows little. */
const LEAST_CHANGED_PAGES = 300
const LEAST_TRANSFERS_A_CUT = 20
const REPORT_EVERY = 50

interface Seen {
  readonly epoch: number
  readonly pauseMs: number
  readonly pagesChanged: number
  /** Of the image, that are not as RAM was. */
  readonly wrong: readonly number[]
}

export async function measureExact(progress: (line: string) => void, options: OptionValues): Promise<Measured> {
  const { cuts, sabotage } = choicesOf(options)
  const host = await OneHost.open('dirty')
  try {
    const [vm, other] = await pair(host)
    progress('two VMs boot')
    await Promise.all([vm.boot(), other.boot()])
    await connected(vm)
    if (sabotage) vm.heard = forgetful()
    const before = await transfers(vm)
    const seen = await cutAndCompare(vm, cuts, progress)
    const moved = (await transfers(vm)) - before
    return measured(host, seen, moved)
  } finally {
    await host.close()
  }
}

async function pair(host: OneHost): Promise<readonly [OneVm, OneVm]> {
  const guest = await buildGuest()
  const [a, b] = await host.wire('wire')
  const spec = (index: number) => ({
    ...bankVm(guest, { index, total: 2, memoryMiB: MEMORY_MIB, ...LOAD }),
    cpus: CPUS,
    disks: DISKS
  })
  return [await host.define('vm1', spec(1), [a]), await host.define('vm2', spec(2), [b])]
}

async function connected(vm: OneVm): Promise<void> {
  await vm.says('that it is connected', console => (parseConsole(console).at(-1)?.conns ?? 0) >= 2)
}

/** Both ways, so far. */
async function transfers(vm: OneVm): Promise<number> {
  const { sent, received } = parseConsole(await vm.console()).at(-1) ?? {}
  return (sent?.get(2)?.count ?? 0) + (received?.get(2)?.count ?? 0)
}

async function cutAndCompare(vm: OneVm, cuts: number, progress: (line: string) => void): Promise<Seen[]> {
  const copy = new ImageCopy(vm.host.factsOf(vm.spec), vm.host.cluster)
  const seen: Seen[] = []
  for (let epoch = 1; epoch <= cuts; epoch++) {
    const { image, ram, pauseMs, mode } = await vm.cut(epoch)
    if (mode !== 'dirty') throw new Error(`epoch ${epoch} was not captured dirty: ${vm.machine.capture.why}`)
    await copy.follow(image)
    seen.push({ epoch, pauseMs, pagesChanged: image.stats.pagesChanged, wrong: differentPages(copy.ram, ram) })
    if (epoch % REPORT_EVERY === 0) progress(`${epoch} cuts, ${wrongOf(seen)} wrong pages`)
  }
  return seen
}

const wrongOf = (seen: readonly Seen[]): number => seen.reduce((sum, { wrong }) => sum + wrong.length, 0)

function measured(host: OneHost, seen: readonly Seen[], moved: number): Measured {
  const wrong = seen.filter(cut => cut.wrong.length > 0)
  return {
    accel: host.hypervisor.accel,
    checks: [
      atMost('pages of images that are not as RAM was', wrongOf(seen), 0, ''),
      equal('images that are RAM', seen.length - wrong.length, seen.length),
      atLeast('pages changed between cuts, p50', median(seen.map(cut => cut.pagesChanged)), LEAST_CHANGED_PAGES, ''),
      atLeast('transfers between the VMs per cut', moved / seen.length, LEAST_TRANSFERS_A_CUT, ''),
      note('pause, p50, with a copy of all RAM in it', median(seen.map(cut => cut.pauseMs)), 'ms'),
      note('pages compared', seen.length * MEMORY_MIB * 256)
    ],
    details: { cuts: seen.length, memoryMiB: MEMORY_MIB, cpus: CPUS, load: LOAD, wrong }
  }
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? 0
}

/** Of every tenth answer it leaves the last pages out. */
function forgetful(): (pages: PageRanges) => PageRanges {
  let asked = 0
  return pages => (++asked % 10 === 0 ? pages.slice(0, -2) : pages)
}

function choicesOf({ cuts = String(CUTS), sabotage }: OptionValues): { cuts: number; sabotage: boolean } {
  const count = Number(cuts)
  if (!Number.isInteger(count) || count < 1)
    throw new UsageError('BENCH_USAGE', `--cuts: expected a number from 1, not ${cuts}`)
  if (sabotage !== undefined && sabotage !== 'forget')
    throw new UsageError('BENCH_USAGE', `--sabotage: expected "forget", not ${sabotage}`)
  return { cuts: count, sabotage: sabotage === 'forget' }
}
