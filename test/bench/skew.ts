/**
 * The experiment of GENI-VIOLIN (IEEE Network 2011) on real VMs: TCP streams both ways between two VMs, whose cuts are
 * forced apart by 0, 1, 2 and 4 s. How long does a stream make no progress, live and after a restore from these images,
 * where (i) early frames are dropped, (ii) they are held, but in-flight frames are no part of the image, (iii) they are
 * held and the in-flight frames are replayed (what diapause does)?
 *
 * VM 1 is cut first. What it sends then is early: on the stream vm1→vm2 the data, on vm2→vm1 the acknowledgements. What
 * VM 2 sends meanwhile is in flight: VM 1 gets it, but the image of VM 1 does not know of it, unless it was recorded.
 *
 * While the cuts are apart, no policy can spare the senders their timeouts: no acknowledgement of VM 1 may come to VM 2
 * before its cut, none of what VM 1 sends can come back, and a sender without one for 200 ms tries again by its timer.
 * What a policy decides is what comes after: whether a stream goes on at the later cut, or waits for a timer that has
 * been doubled again and again. So timeouts are counted from the later cut on, and those before it are told beside.
 *
 * All runs begin with the same two images, taken before, so that no run inherits what another did to the streams.
 */
import { monitorEventLoopDelay, performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { table } from '../../node/edge/format.ts'
import { UsageError } from '../../node/errors.ts'
import { atLeast, atMost, type Check, equal, note } from '../measure.ts'
import type { Measured, OptionValues } from './list.ts'
import { followStream, longestSilence, type Seen, type Stream, type StreamRun, untilProgress } from './skew-analysis.ts'
import { type Curve, type Panel, plotSvg } from './skew-plot.ts'
import { type Images, SkewRig } from './skew-rig.ts'
import type { Handled, Policy } from './skew-tap.ts'

const SKEWS = '0,1,2,4'
const PORT = 7000
const STREAMS: readonly Stream[] = [
  { sender: 1, receiver: 2, port: PORT },
  { sender: 2, receiver: 1, port: PORT }
]
/** Before the first cut: round trips are known to both ends by then. */
const WARM_MS = 1_500
/** After the later cut, or the restore, beside the skew: a timer that was doubled is at most as long as the skew was. */
const WATCH_MS = 1_500
const TICK_MS = 5
/** Where other programs keep the switch waiting for so long, TCP waits, too: a third of its least timeout. A guess. */
const LATE_MS = 60
const TRIES = 3
/** Shown before the first cut. */
const BEFORE_MS = 500
/** A stream that stands still for longer than a timeout (200 ms), beside what the host was late, has waited for one. */
const GOES_ON_MS = 200
/**
 * A VM that runs while its pages come stands still at each that it needs and has not: 200 to 600 ms in all on a busy host
 * without KVM, which is most of what a stream waits. No policy for frames shortens that, so the bound is that of the whole: a
 * VM is to work again within 1 s of its restart, as after a failover. At 4 s of skew it tells policies apart: without its
 * in-flight frames a stream waits for 2.6 s. How many timers end meanwhile is told and not bounded: those of the VM that is
 * there first run while the other stands still.
 */
const POST_COPY_GOES_ON_MS = 1_000
/** From here on there are early and in-flight frames for certain: a sender sends at least until its timer ends. */
const CERTAIN_SKEW_MS = 1_000

interface Variant extends Policy {
  readonly name: string
  readonly color: string
  /** Of a restored VM, when it begins to run. */
  readonly pages: 'there' | 'post-copy'
}

const DROPPED: Variant = { name: 'dropped', color: '#c0392b', early: 'dropped', inFlight: 'left out', pages: 'there' }
const HELD: Variant = { name: 'held', color: '#2962c4', early: 'held', inFlight: 'left out', pages: 'there' }
const REPLAYED: Variant = {
  name: 'held + replayed',
  color: '#1e8e4e',
  early: 'held',
  inFlight: 'replayed',
  pages: 'there'
}
/** The same as a peer restores: the VM runs before its pages are there, and its TCP's timers with it. */
const POST_COPY: Variant = { ...REPLAYED, name: 'held + replayed, post-copy', color: '#d68910', pages: 'post-copy' }

/** One observation of both streams; times are of one clock, and `startMs` is 0 in the plot. */
interface Phase {
  readonly variant: Variant
  readonly skewMs: number
  readonly phase: 'live' | 'restored'
  readonly startMs: number
  /** Of the later cut, or of the restore. */
  readonly sinceMs: number
  readonly endMs: number
  readonly streams: readonly StreamRun[]
  /** By the word of the guests: before `sinceMs`, and after. */
  readonly timeouts: readonly [number, number]
  /** By how much the thread of the switch was late at most, or the stop of a restored VM that waits for its pages. */
  readonly lateMs: number
  readonly handled: Handled
  /** Since `sinceMs`: when the slower VM sent its first segment, of whatever kind. Infinity: it sent none. */
  readonly awakeAfterMs: number
  /** Between the two cuts, or the starts of the two restored VMs. */
  readonly apartMs: number
}

export async function measureSkew(progress: (line: string) => void, options: OptionValues): Promise<Measured> {
  const skewsMs = readSkews(options)
  const rig = await SkewRig.open()
  try {
    progress('booting two VMs and taking the images with which every run begins')
    await rig.boot()
    await sleep(WARM_MS)
    const origin = await (await rig.cut(0)).images
    const phases: Phase[] = []
    for (const skewMs of skewsMs) {
      for (const variants of [[DROPPED], [HELD, REPLAYED, POST_COPY]]) {
        progress(`skew ${skewMs / 1000} s, early frames ${variants[0]?.early}`)
        phases.push(...(await run(rig, origin, skewMs, variants)))
      }
    }
    const complaints = await rig.complaints()
    const checks = [
      ...checksOf(phases),
      equal('frames lost by the switch', rig.lostFrames, 0),
      equal('complaints of the guests', complaints.join('; '), '')
    ]
    const details = { phases: phases.map(summary) }
    return { checks, details, accel: rig.hypervisor.accel, text: tableOf(phases), svg: svgOf(skewsMs, phases) }
  } finally {
    await rig.close()
  }
}

function readSkews({ skews = SKEWS }: OptionValues): number[] {
  if (!/^\d(,\d)*$/.test(skews))
    throw new UsageError('BENCH_USAGE', `--skews takes seconds like ${SKEWS}, not ${JSON.stringify(skews)}`)
  return skews.split(',').map(seconds => Number(seconds) * 1000)
}

/** One forced cut, and a restore of its images for each of `variants`, which treat early frames alike. */
async function run(rig: SkewRig, origin: Images, skewMs: number, variants: readonly Variant[]): Promise<Phase[]> {
  const { phase, cut } = await undisturbed(() => live(rig, origin, skewMs, variants[0] as Variant))
  const phases = [phase]
  for (const each of variants) phases.push((await undisturbed(() => restored(rig, cut, each))).phase)
  return phases
}

/** The last of at most `TRIES` attempts, or the first during which the host was never late. */
async function undisturbed<T extends { readonly phase: Phase }>(attempt: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    const result = await attempt()
    if (result.phase.lateMs <= LATE_MS || tries === TRIES) return result
  }
}

/** What is to be restored, and what the VMs had seen by their cuts. */
interface Cut {
  readonly images: Images
  readonly skewMs: number
  readonly history: readonly Seen[]
  /** As VM 1 counted them right before its cut, and VM 2 right after its. */
  readonly timeouts: Counts
}

async function live(
  rig: SkewRig,
  origin: Images,
  skewMs: number,
  variant: Variant
): Promise<{ phase: Phase; cut: Cut }> {
  rig.tap.policy = REPLAYED
  await rig.resume(origin, 'there')
  await sleep(WARM_MS)
  const atFirst = await rig.timeouts()
  rig.tap.policy = variant
  const late = watchLateness()
  const { cutMs, images } = await rig.cut(skewMs)
  const atLater = await rig.timeouts()
  await sleep(skewMs + WATCH_MS)
  const endMs = performance.now()
  const lateMs = late()
  const { seen, handled } = rig.tap.take()
  const atEnd = await rig.timeouts()
  const [startMs, sinceMs] = cutMs[0] < cutMs[1] ? cutMs : [cutMs[1], cutMs[0]]
  const timeouts = [between(atFirst, atLater), between(atLater, atEnd)] as const
  const streams = STREAMS.map(stream => followStream(stream, [], seen))
  const apartMs = sinceMs - startMs
  const shared = { variant, skewMs, phase: 'live', streams, timeouts, lateMs, apartMs, handled } as const
  const history = seen.filter(({ vm, atMs }) => atMs < (cutMs[vm - 1] ?? 0))
  return {
    phase: { ...shared, startMs, sinceMs, endMs, awakeAfterMs: awakeAfter(seen, sinceMs) },
    cut: { images: await images, skewMs, history, timeouts: [atFirst[0], atLater[1]] }
  }
}

async function restored(rig: SkewRig, cut: Cut, variant: Variant): Promise<{ phase: Phase }> {
  rig.tap.policy = variant
  const { runMs, apartMs, ranBeforeMs } = await rig.resume(cut.images, variant.pages)
  const late = watchLateness()
  await sleep(cut.skewMs + WATCH_MS)
  const endMs = performance.now()
  const lateMs = Math.max(late(), ranBeforeMs)
  const { seen, handled } = rig.tap.take()
  const timeouts = [0, between(cut.timeouts, await rig.timeouts())] as const
  await rig.complete()
  const streams = STREAMS.map(stream => followStream(stream, cut.history, seen))
  const { skewMs } = cut
  const shared = { variant, skewMs, phase: 'restored', streams, timeouts, lateMs, apartMs, handled } as const
  const awakeAfterMs = awakeAfter(seen, runMs)
  return { phase: { ...shared, startMs: runMs, sinceMs: runMs, endMs, awakeAfterMs } }
}

function awakeAfter(seen: readonly Seen[], sinceMs: number): number {
  const first = (number: number) =>
    seen.find(({ vm, way, atMs }) => vm === number && way === 'sent' && atMs >= sinceMs)?.atMs ?? Infinity
  return Math.max(first(1), first(2)) - sinceMs
}

/** The result is by how much a timer of this thread was late at most since. */
function watchLateness(): () => number {
  const delays = monitorEventLoopDelay({ resolution: TICK_MS })
  delays.enable()
  return () => {
    delays.disable()
    return Math.max(0, delays.max / 1e6 - TICK_MS)
  }
}

/** Of VM 1 and VM 2. */
type Counts = readonly [number, number]

const between = (earlier: Counts, later: Counts): number => later[0] - earlier[0] + later[1] - earlier[1]

// ---------------------------------------------------------------------------------------------- what it comes to

interface Summary extends Handled {
  readonly frames: string
  readonly phase: Phase['phase']
  readonly skewMs: number
  readonly apartMs: number
  /** Of either stream, from the first cut or the restore to the end. */
  readonly longestSilenceMs: number
  /** Until both VMs had sent something, from the later cut or the restore on; null: one did not. */
  readonly awakeAfterMs: number | null
  /** Until both streams went on, from the later cut or the restore on; null: one did not. */
  readonly goesOnAfterMs: number | null
  readonly timeoutsBefore: number
  readonly timeoutsAfter: number
  /** Above `LATE_MS`: other programs had a part in it. */
  readonly hostLateMs: number
  /** Before and after, as the frames look like. */
  readonly timeoutsSeen: number
}

function summary(each: Phase): Summary {
  const { phase, skewMs, apartMs, startMs, sinceMs, endMs, streams, timeouts } = each
  const seen = streams.flatMap(({ repeats }) => repeats.filter(({ timeout, atMs }) => timeout && atMs >= startMs))
  const goesOn = Math.max(...streams.map(({ progress }) => untilProgress(progress, sinceMs)))
  return {
    frames: framesOf(each),
    phase,
    skewMs,
    apartMs,
    longestSilenceMs: Math.max(...streams.map(({ progress }) => longestSilence(progress, startMs, endMs))),
    awakeAfterMs: finite(each.awakeAfterMs),
    goesOnAfterMs: finite(goesOn),
    timeoutsBefore: timeouts[0],
    timeoutsAfter: timeouts[1],
    hostLateMs: each.lateMs,
    timeoutsSeen: seen.length,
    ...each.handled
  }
}

const finite = (value: number): number | null => (Number.isFinite(value) ? value : null)

/** What was done with frames, as far as it matters in this phase. */
const framesOf = ({ variant, phase }: Phase): string => (phase === 'live' ? variant.early : variant.name)

/** Bounds for what diapause does, and that every policy had something to do; the rest is in the table and in the JSON. */
function checksOf(phases: readonly Phase[]): Check[] {
  const ours = phases.filter(({ variant, phase }) => variant === REPLAYED || (variant === HELD && phase === 'live'))
  const postCopy = phases.filter(({ variant }) => variant === POST_COPY)
  return [...ours.flatMap(boundsOf), ...postCopy.flatMap(postCopyBoundsOf), ...phases.flatMap(doneBy)]
}

function boundsOf(each: Phase): Check[] {
  const { phase, skewMs } = each
  const { goesOnAfterMs, timeoutsBefore, timeoutsAfter } = summary(each)
  const name = nameOf(each)
  const since = phase === 'live' ? 'the later cut' : 'the restore'
  const boundMs = GOES_ON_MS + Math.ceil(each.lateMs)
  return [
    atMost(`${name}: both streams go on after ${since}`, goesOnAfterMs ?? Infinity, boundMs, 'ms'),
    equal(`${name}: TCP timeouts after ${since}`, timeoutsAfter, 0),
    ...(skewMs === 0 && phase === 'live'
      ? [equal(`${name}: TCP timeouts in all`, timeoutsBefore + timeoutsAfter, 0)]
      : [])
  ]
}

function postCopyBoundsOf(each: Phase): Check[] {
  const { goesOnAfterMs, timeoutsAfter } = summary(each)
  const name = nameOf(each)
  return [
    atMost(`${name}: both streams go on after the restore`, goesOnAfterMs ?? Infinity, POST_COPY_GOES_ON_MS, 'ms'),
    note(`${name}: TCP timeouts after the restore`, timeoutsAfter)
  ]
}

/** With nothing dropped, left out or replayed the variants would not differ, and the bounds would hold for nothing. */
function doneBy(each: Phase): Check[] {
  const { variant, phase, skewMs, handled } = each
  if (skewMs < CERTAIN_SKEW_MS) return []
  const name = nameOf(each)
  if (phase === 'live')
    return variant.early === 'dropped' ? [atLeast(`${name}: early frames`, handled.droppedEarly, 1, '')] : []
  const [what, bytes] =
    variant.inFlight === 'replayed' ? ['replayed', handled.replayedBytes] : ['left out', handled.leftOutBytes]
  return [atLeast(`${name}: in-flight frames ${what}`, bytes, 1, 'B')]
}

const nameOf = (each: Phase): string => `skew ${each.skewMs / 1000} s, ${each.phase}, ${framesOf(each)}`

function tableOf(phases: readonly Phase[]): string[] {
  const head = [
    '',
    'frames',
    'no progress for',
    'awake after',
    'goes on after',
    'timeouts before',
    'after',
    'host late by'
  ]
  const rows = phases.map(each => {
    const { frames, phase, skewMs, timeoutsBefore, timeoutsAfter, ...times } = summary(each)
    return [
      `skew ${skewMs / 1000} s, ${phase}`,
      frames,
      inMs(times.longestSilenceMs),
      inMs(times.awakeAfterMs),
      inMs(times.goesOnAfterMs),
      phase === 'live' ? `${timeoutsBefore}` : '',
      `${timeoutsAfter}`,
      inMs(times.hostLateMs)
    ]
  })
  return table([head, ...rows])
}

const inMs = (value: number | null): string => (value === null ? 'never' : `${Math.round(value)} ms`)

function svgOf(skewsMs: readonly number[], phases: readonly Phase[]): string {
  const rows = skewsMs.map(skewMs =>
    (['live', 'restored'] as const).flatMap(when =>
      STREAMS.map((stream, index) => {
        const shown = phases.filter(phase => phase.skewMs === skewMs && phase.phase === when)
        return panelOf(`${when}, skew ${skewMs / 1000} s, vm${stream.sender} → vm${stream.receiver}`, shown, index)
      })
    )
  )
  return plotSvg({
    title: 'TCP sequence numbers of the receiver while the cuts of two VMs are forced apart, and after a restore',
    marks: 'a segment sent again after a timeout',
    x: 'seconds',
    y: 'kB received in order',
    rows
  })
}

function panelOf(title: string, phases: readonly Phase[], stream: number): Panel {
  const live = phases[0]?.phase === 'live'
  const before = live ? BEFORE_MS : 0
  const lasts = Math.max(...phases.map(({ startMs, endMs }) => endMs - startMs))
  const later = live && (phases[0]?.skewMs ?? 0) > 0
  return {
    title,
    fromX: -before / 1000,
    toX: lasts / 1000,
    events: live
      ? [{ x: 0, name: 'vm1 cut' }, ...(later ? [{ x: (phases[0]?.apartMs ?? 0) / 1000, name: 'vm2 cut' }] : [])]
      : [],
    curves: phases.map(phase => curveOf(phase, stream, before, live))
  }
}

/** Counted from the first byte shown; a restored stream from where the image of its receiver was. */
function curveOf({ variant, startMs, streams }: Phase, stream: number, beforeMs: number, live: boolean): Curve {
  const { progress = [], repeats = [] } = streams[stream] ?? {}
  const shown = progress.filter(({ atMs }, i) => atMs >= startMs - beforeMs || progress[i + 1] === undefined)
  const base = live ? (shown[0]?.bytes ?? 0) : (progress[0]?.bytes ?? 0)
  const at = ({ atMs, bytes }: { atMs: number; bytes: number }) =>
    [(atMs - startMs) / 1000, (bytes - base) / 1000] as const
  return {
    name: live ? (variant.early === 'held' ? REPLAYED.name : variant.name) : variant.name,
    color: live && variant.early === 'held' ? REPLAYED.color : variant.color,
    points: live ? shown.map(at) : [[0, 0], ...shown.map(at)],
    marks: repeats.filter(({ timeout }) => timeout).map(at)
  }
}
