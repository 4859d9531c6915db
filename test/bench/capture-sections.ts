/**
 * The parts of `npm run bench -- capture` that measure VMs on peers; `capture.ts` says what is asked of them. Each starts VMs of
 * its own, so that any can be run alone.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { table } from '../../node/edge/format.ts'
import { quantile } from '../../protocols/epoch/cut-profile.ts'
import { atLeast, atMost, type Check, equal, note } from '../measure.ts'
import { CaptureRig, type Epoch, type Load, LOADS, pagesASecond } from './capture-rig.ts'
import { watchOthers } from './processor.ts'

export interface Section {
  readonly checks: readonly Check[]
  readonly text?: readonly string[]
  readonly details: Readonly<Record<string, unknown>>
  readonly accel: string
}

export interface Size {
  readonly memoryMiB: number
  readonly fillMiB: number
}

export type Progress = (line: string) => void

export const MODES = ['dirty', 'portable'] as const
export type Mode = (typeof MODES)[number]

const MIB = 1_048_576
const EPOCHS = 5
const APART_MS = 1_000
/** The kernel, and its own tables of pages (a sixty-fourth of all), beside what the workload fills. */
const KERNEL_MIB = 192
const TABLES_PART = 1 / 16
const MOST_PEAK_MIB = 256
const SMALL_PART = 0.1
const SIZES_RATIO = 1.3
const PAUSE_MS = 10
const PAUSE_RATE = 10_000
const PAUSE_EPOCHS = 31
const RAPID = { count: 300, intervalMs: 200, rate: 1_000 }
const SIZE_EPOCHS = 9

export const sizeOf = (fillMiB: number): Size => ({
  memoryMiB: fillMiB + KERNEL_MIB + Math.ceil(fillMiB * TABLES_PART),
  fillMiB
})
export const median = (values: readonly number[]): number => quantile(values, 0.5)

// ---------------------------------------------------------------------------------------------- three loads

export interface LoadEpoch extends Epoch {
  readonly mode: Mode
  readonly load: Load | 'first'
}

/** A first epoch and five more under each load, in both modes. */
export async function measureLoads(size: Size, progress: Progress): Promise<Section & { epochs: LoadEpoch[] }> {
  const epochs: LoadEpoch[] = []
  const rates: Record<string, number> = {}
  let accel = ''
  const others: Check[] = []
  for (const mode of MODES) {
    progress(`${mode}: a VM with ${size.fillMiB} MiB in use`)
    const rig = await CaptureRig.start({ capture: mode, ...size })
    accel = rig.accel
    const share = watchOthers()
    try {
      epochs.push({ mode, load: 'first', ...(await rig.epoch()) })
      let last = ''
      for (const load of Object.keys(LOADS) as Load[]) {
        progress(`${mode}: ${load}`)
        // What the load before has written goes into an epoch of its own, which does not count.
        const rate = await rig.load(LOADS.idle)
        await rig.epoch()
        await rig.load(LOADS[load])
        if (last !== '') rates[`${mode} ${last}`] = rate
        last = load
        for (let n = 0; n < EPOCHS; n++) {
          await sleep(APART_MS)
          epochs.push({ mode, load, ...(await rig.epoch()) })
        }
      }
      rates[`${mode} ${last}`] = await rig.load(LOADS.idle)
      others.push(note(`${mode}: processors taken by others`, share()))
    } finally {
      await rig.stop()
    }
  }
  const checks = [...MODES.flatMap(mode => loadChecks(mode, epochs)), ...others]
  return { checks, text: loadTable(epochs), details: { epochs, pagesPerSecond: rates }, accel, epochs }
}

function loadChecks(mode: Mode, all: readonly LoadEpoch[]): Check[] {
  const own = all.filter(each => each.mode === mode)
  const small = own.filter(({ load }) => load === 'small')
  const parts = small.map(({ shippedBytes, truth }) => shippedBytes / ((truth?.pages ?? 0) * 4096))
  const sum = (value: (epoch: LoadEpoch) => number) => small.reduce((all, each) => all + value(each), 0)
  const together = sum(each => each.shippedBytes) / sum(({ truth }) => (truth?.pages ?? 0) * 4096)
  const missed = own.filter(({ pagesChanged, truth }) => pagesChanged < (truth?.pages ?? 0))
  return [
    equal(`${mode}: epochs that took fewer pages than changed`, missed.length, 0),
    atMost(
      `${mode}: 8 bytes a page: bytes shipped, part of the pages that changed (median)`,
      median(parts),
      SMALL_PART,
      ''
    ),
    atMost(`${mode}: the same, of all five epochs together`, together, SMALL_PART, ''),
    note(`${mode}: the same, first epoch of the load`, parts[0] ?? Number.NaN),
    atMost(
      `${mode}: peak memory of the peer above idle`,
      Math.max(...own.map(({ peakBytes }) => peakBytes)) / MIB,
      MOST_PEAK_MIB,
      'MiB'
    ),
    ...(['first', ...Object.keys(LOADS)] as (Load | 'first')[]).flatMap(load => {
      const of = own.filter(each => each.load === load)
      const middle = (value: (epoch: LoadEpoch) => number) => median(of.map(value))
      return [
        note(
          `${mode}, ${load}: pause`,
          middle(({ pauseMs }) => pauseMs),
          'ms'
        ),
        note(
          `${mode}, ${load}: shipped for a byte that changed`,
          middle(each => each.shippedBytes / Math.max(1, each.truth?.bytes ?? 0))
        )
      ]
    })
  ]
}

function loadTable(epochs: readonly LoadEpoch[]): string[] {
  const mb = (bytes: number): string => (bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 0)
  const head = ['mode', 'load', 'pause ms', 'pages', 'MB changed', 'MB shipped', 'with parity', 'seconds']
  const rows = epochs.map(each => [
    each.mode,
    each.load,
    each.pauseMs.toFixed(1),
    `${each.truth?.pages ?? ''}`,
    mb(each.truth?.bytes ?? 0),
    mb(each.shippedBytes),
    mb(each.storedBytes),
    each.seconds.toFixed(2),
    each.peerCpuS.toFixed(2),
    each.qemuCpuS.toFixed(2),
    each.guestCpuS.toFixed(2),
    (each.peakBytes / MIB).toFixed(0)
  ])
  return table([[...head, 'CPU s: peer', 'QEMU', 'guest', 'peak MiB'], ...rows])
}

// ---------------------------------------------------------------------------------------------- size of the VM

/** A VM with four times as much in use takes turns with one of the other size, under the same load. */
export async function measureSizes(size: Size, progress: Progress): Promise<Section> {
  const sizes = { small: size, large: sizeOf(4 * size.fillMiB) }
  progress(`a VM with ${sizes.small.fillMiB} MiB in use and one with ${sizes.large.fillMiB}`)
  const epochs = { small: [] as Epoch[], large: [] as Epoch[] }
  const names = ['small', 'large'] as const
  const rigs = new Map<'small' | 'large', CaptureRig>()
  let accel = ''
  try {
    for (const name of names) rigs.set(name, await CaptureRig.start({ capture: 'dirty', ...sizes[name] }))
    for (const [name, rig] of rigs) {
      accel = rig.accel
      epochs[name].push(await rig.epoch(false))
      await rig.load(LOADS.random)
    }
    for (let n = 0; n < SIZE_EPOCHS; n++) {
      for (const [name, rig] of rigs) {
        await sleep(APART_MS / 2)
        epochs[name].push(await rig.epoch(false))
      }
    }
  } finally {
    await Promise.all([...rigs.values()].map(rig => rig.stop()))
  }
  const portable = await peakOfPortable(sizes.large, progress)
  const later = (name: 'small' | 'large', of: (epoch: Epoch) => number) => median(epochs[name].slice(2).map(of))
  const ratio = (of: (epoch: Epoch) => number) => later('large', of) / later('small', of)
  const peak = (all: readonly Epoch[]) => Math.max(...all.map(({ peakBytes }) => peakBytes)) / MIB
  const [few, many] = names.map(name => `${sizes[name].fillMiB} MiB`)
  const cpu = ({ peerCpuS }: Epoch) => peerCpuS
  const checks = [
    atMost(`dirty, ${many} against ${few}: CPU seconds an epoch`, ratio(cpu), SIZES_RATIO, 'times'),
    atMost(
      `dirty, ${many} against ${few}: bytes read an epoch`,
      ratio(each => each.readBytes),
      SIZES_RATIO,
      'times'
    ),
    note(`dirty, ${few}: CPU seconds an epoch`, later('small', cpu), 's'),
    note(`dirty, ${many}: CPU seconds an epoch`, later('large', cpu), 's'),
    note(
      `dirty, ${few}: pause`,
      later('small', each => each.pauseMs),
      'ms'
    ),
    note(
      `dirty, ${many}: pause`,
      later('large', each => each.pauseMs),
      'ms'
    ),
    note(
      `dirty, ${many} against ${few}: pages changed`,
      ratio(each => each.pagesChanged),
      'times'
    ),
    atMost(`dirty, ${few}: peak memory of the peer above idle`, peak(epochs.small), MOST_PEAK_MIB, 'MiB'),
    atMost(`dirty, ${many}: peak memory of the peer above idle`, peak(epochs.large), MOST_PEAK_MIB, 'MiB'),
    atMost(`portable, ${many}: peak memory of the peer above idle`, peak(portable), MOST_PEAK_MIB, 'MiB')
  ]
  return { checks, details: { sizes: { ...epochs, portable } }, accel }
}

async function peakOfPortable(size: Size, progress: Progress): Promise<Epoch[]> {
  progress(`portable: a VM with ${size.fillMiB} MiB in use`)
  const rig = await CaptureRig.start({ capture: 'portable', ...size })
  try {
    const first = await rig.epoch(false)
    await rig.load(LOADS.random)
    return [first, await rig.epoch(false)]
  } finally {
    await rig.stop()
  }
}

// ---------------------------------------------------------------------------------------------- short pauses, many epochs

export async function measurePauses(size: Size, progress: Progress): Promise<Section> {
  const rig = await CaptureRig.start({ capture: 'dirty', ...size })
  const others = watchOthers()
  try {
    await rig.epoch(false)
    const found: { name: string; epochs: Epoch[]; rate: number }[] = []
    const loads = { '8 bytes': `write ${PAUSE_RATE} 8 51200`, whole: pagesASecond(PAUSE_RATE) }
    for (const [name, command] of Object.entries(loads)) {
      progress(`pauses with ${PAUSE_RATE} pages written a second, ${name}`)
      await rig.load(command)
      const epochs: Epoch[] = []
      for (let n = 0; n < PAUSE_EPOCHS; n++) {
        await sleep(APART_MS / 4)
        epochs.push(await rig.epoch(false))
      }
      found.push({ name, epochs, rate: await rig.load(LOADS.idle) })
    }
    const checks = found.flatMap(({ name, epochs, rate }) => {
      const pauses = epochs.map(({ pauseMs }) => pauseMs)
      const what = `${PAUSE_RATE} pages written a second, ${name}`
      return [
        atMost(`${what}: pause p50`, median(pauses), PAUSE_MS, 'ms'),
        note(`${what}: pause p90`, quantile(pauses, 0.9), 'ms'),
        note(`${what}: pause, longest`, Math.max(...pauses), 'ms'),
        note(`${what}: written by the guest's own count`, rate, '1/s')
      ]
    })
    checks.push(note('processors taken by others', others()))
    return { checks, details: { pauses: found }, accel: rig.accel }
  } finally {
    await rig.stop()
  }
}

/**
 * Kept up means: each epoch was committed before the next was due, so that none ever waited for the one before it, and the
 * last within the minute.
 */
export async function measureRapid(size: Size, progress: Progress): Promise<Section> {
  const rig = await CaptureRig.start({ capture: 'dirty', ...size })
  const others = watchOthers()
  try {
    await rig.epoch(false)
    await rig.load(pagesASecond(RAPID.rate))
    progress(`${RAPID.count} epochs, one every ${RAPID.intervalMs} ms`)
    const epochs = await rig.rapid(RAPID.count, RAPID.intervalMs)
    const rate = await rig.load(LOADS.idle)
    const tookMs = epochs.map(({ dueMs, committedMs }) => committedMs - dueMs)
    const late = tookMs.filter(ms => ms > RAPID.intervalMs).length
    const limitMs = RAPID.count * RAPID.intervalMs
    const inTime = epochs.filter(({ committedMs }) => committedMs <= limitMs).length
    const what = `five epochs a second, ${RAPID.rate} pages written`
    const checks = [
      atLeast(`${what}: committed in ${limitMs / 1000} s`, inTime, RAPID.count, ''),
      equal(`${what}: epochs not committed when the next was due`, late, 0),
      note(`${what}: from due to committed, p50`, median(tookMs), 'ms'),
      note(`${what}: from due to committed, p99`, quantile(tookMs, 0.99), 'ms'),
      note(`${what}: from due to committed, longest`, Math.max(...tookMs), 'ms'),
      note(`${what}: pause p50`, median(epochs.map(({ pauseMs }) => pauseMs)), 'ms'),
      note(
        `${what}: pause p99`,
        quantile(
          epochs.map(({ pauseMs }) => pauseMs),
          0.99
        ),
        'ms'
      ),
      note(`${what}: pages changed an epoch`, median(epochs.map(({ pagesChanged }) => pagesChanged))),
      note(`${what}: written by the guest's own count`, rate, '1/s'),
      note('processors taken by others', others())
    ]
    return { checks, details: { rapid: epochs }, accel: rig.accel }
  } finally {
    await rig.stop()
  }
}
