/**
 * Epochs as a cluster takes them that is not left in peace: ten a minute under load while hosts die, come back and join.
 * Three questions, in one run of real peers and VMs:
 *
 *   1. Is every epoch decided? It is committed or aborted, all peers say the same, and none stays open past its deadline.
 *   2. Is every committed epoch whole? Each, and not only the last, is restored in an isolated network from what the peers'
 *      disks held at its commit (`epochs-archive.ts`, `epochs-restore.ts`), and its bank is audited there: no coin and no
 *      transfer is lost or doubled, no connection breaks, no VM boots. Restores wait until the cluster has ended, so that
 *      they take nothing from it.
 *   3. Is every cut consistent? A recorder in every peer writes down what passed each VM's socket (`cut-checker-recorder.ts`),
 *      and the checker compares that with the frames in every image that was restored (`cut-checker.ts`). With `--sabotage`
 *      the peers' switches are broken (`cut-checker-sabotage.ts`), and the checker must find that: nothing else is asked.
 */
import { join } from 'node:path'

import { configSchema } from '../../config/schema.ts'
import { UsageError, messageOf } from '../../node/errors.ts'
import { table } from '../../node/edge/format.ts'
import { quantile } from '../../protocols/epoch/cut-profile.ts'
import type { SeenEvent } from '../demo/events.ts'
import { atLeast, atMost, type Check, equal, note } from '../measure.ts'
import { checkCuts, type CutVerdict } from './cut-checker.ts'
import { isLateEpoch } from './cut-checker-late.ts'
import type { PortLog } from './cut-checker-log.ts'
import { isSabotage, type Sabotage, SABOTAGES, sabotagePreload } from './cut-checker-sabotage.ts'
import { EpochsRig, type Fate, TICK_MS } from './epochs-rig.ts'
import { Isolated, type Restored } from './epochs-restore.ts'
import type { Measured, OptionValues } from './list.ts'

/** Of a run of five minutes, as an issue of the project asks. A shorter one is a try, which need not have as many. */
const FRAMES = 1_000_000
const FULL_SECONDS = 300
/** The default of `epochs.deadlineMs`. */
const EPOCH_DEADLINE_MS = configSchema.shape.epochs.parse({}).deadlineMs
/** A guess: what is left when each death takes two or three epochs with it. With none committed all else would hold, too. */
const COMMITTED_PART = 0.5
/** For all peers to learn of the end of a deadline, and for a register to be changed. A guess. */
const GRACE_MS = 5_000
/** What each sabotage must be found as. */
const FOUND_AS: Readonly<Record<Sabotage, 'early' | 'lost' | 'missing'>> = {
  early: 'early',
  'early-dropped': 'lost',
  'in-flight': 'missing',
  untaken: 'missing'
}

interface Found {
  readonly fates: readonly Fate[]
  readonly skewsMs: readonly number[]
  readonly pausesMs: readonly number[]
  /** Of every cut: what the plan of starts is made of (protocols/epoch/cut-profile.ts). */
  readonly preparesMs: readonly number[]
  readonly leadsMs: readonly number[]
  readonly commitsMs: readonly number[]
  readonly killed: readonly string[]
  readonly joined: readonly string[]
  readonly restored: readonly Restored[]
  readonly cuts: CutVerdict
  readonly leftovers: readonly string[]
  readonly accel: string
  readonly error: string | undefined
}

export async function measureEpochs(progress: (line: string) => void, options: OptionValues): Promise<Measured> {
  const seconds = readSeconds(options)
  const sabotage = readSabotage(options)
  const found = await run(seconds, sabotage, progress)
  const { accel, restored, ...rest } = found
  const short = restored.map(({ epoch, faults, tookMs }) => ({ epoch, faults, tookMs: Math.round(tookMs) }))
  const details = { seconds, sabotage: sabotage ?? null, ...rest, restored: short, error: found.error ?? null }
  const checks = sabotage === undefined ? checksOf(seconds, found) : sabotageChecks(sabotage, found.cuts)
  return { checks, accel, details, text: textOf(found) }
}

function readSeconds({ seconds = `${FULL_SECONDS}` }: OptionValues): number {
  if (!/^\d{2,4}$/.test(seconds))
    throw new UsageError(
      'BENCH_USAGE',
      `--seconds takes a whole number from 10 to 9999, not ${JSON.stringify(seconds)}`
    )
  return Number(seconds)
}

function readSabotage({ sabotage }: OptionValues): Sabotage | undefined {
  if (sabotage === undefined || isSabotage(sabotage)) return sabotage
  throw new UsageError(
    'BENCH_USAGE',
    `--sabotage takes one of ${Object.keys(SABOTAGES).join(', ')}, not ${JSON.stringify(sabotage)}`
  )
}

async function run(seconds: number, sabotage: Sabotage | undefined, progress: (line: string) => void): Promise<Found> {
  progress('starting five peers and three busy VMs')
  const recorder = join(import.meta.dirname, 'cut-checker-recorder.ts')
  const rig = await EpochsRig.start(progress, sabotage === undefined ? recorder : sabotagePreload(sabotage))
  let frames: PortLog[] = []
  let restored: Restored[] = []
  let leftovers: string[] = []
  let error: string | undefined
  const accel = await rig.hypervisor()
  try {
    try {
      progress(`an epoch every ${TICK_MS / 1000} s for ${seconds} s`)
      await rig.run(seconds * 1000)
    } catch (reason) {
      error = messageOf(reason)
      progress(`the run has come to an early end: ${error}`)
    }
    try {
      frames = await rig.frames()
    } finally {
      leftovers = await rig.stop()
    }
    restored = await restoreAll(rig, progress)
  } finally {
    rig.archive.remove()
  }
  progress('checking the cuts')
  const cuts = checkCuts(
    frames,
    restored.flatMap(each => each.frames)
  )
  const { killed, joined } = rig
  const epochs = { fates: rig.fates(), ...timesOf(rig.bank.cluster.events) }
  return { ...epochs, killed, joined, restored, cuts, leftovers, accel, error }
}

/** Each committed epoch's as the first peer told it, and each cut's. Not those in which a cut was made late. */
function timesOf(all: readonly SeenEvent[]) {
  const events = all.filter(({ event }) => !('epoch' in event && isLateEpoch(event.epoch)))
  const skews = new Map<number, number>()
  const commits = new Map<number, number>()
  for (const { event } of events) {
    if (event.kind !== 'epoch.committed') continue
    if (event.skewMs !== undefined && !skews.has(event.epoch)) skews.set(event.epoch, event.skewMs)
    if (!commits.has(event.epoch)) commits.set(event.epoch, event.commitMs)
  }
  const cuts = events.flatMap(({ event }) => (event.kind === 'cut' ? [event] : []))
  return {
    skewsMs: [...skews.values()],
    commitsMs: [...commits.values()],
    pausesMs: cuts.map(({ pauseMs }) => pauseMs),
    preparesMs: cuts.flatMap(({ prepareMs = [] }) => prepareMs),
    leadsMs: cuts.flatMap(({ leadMs = [] }) => leadMs)
  }
}

async function restoreAll(rig: EpochsRig, progress: (line: string) => void): Promise<Restored[]> {
  const committed = rig.fates().filter(({ outcome }) => outcome === 'committed')
  progress(`restoring ${committed.length} committed epochs, one after the other, in a network of their own`)
  const isolated = await Isolated.open({ archived: await rig.archive.open(), ...rig.facts })
  const restored: Restored[] = []
  try {
    for (const { epoch } of committed) {
      const each = await isolated.restore(epoch)
      restored.push(each)
      const sound = each.faults.length === 0 ? 'sound' : `NOT SOUND: ${each.faults.join('; ')}`
      progress(`epoch ${epoch}: the bank is ${sound} (${(each.tookMs / 1000).toFixed(1)} s)`)
    }
  } finally {
    await isolated.close()
  }
  return restored
}

function checksOf(seconds: number, found: Found): Check[] {
  const { fates, restored, killed, joined, leftovers, error } = found
  const count = (outcome: Fate['outcome']): number => fates.filter(fate => fate.outcome === outcome).length
  const openMs = fates.map(({ openedMs, decidedMs }) => (decidedMs ?? Number.POSITIVE_INFINITY) - openedMs)
  const unsound = restored.filter(({ faults }) => faults.length > 0).length
  const spread = (name: string, values: readonly number[]): Check[] => [
    note(`${name}.median`, quantile(values, 0.5), 'ms'),
    note(`${name}.p95`, quantile(values, 0.95), 'ms'),
    note(`${name}.most`, quantile(values, 1), 'ms')
  ]
  const ticks = Math.ceil((seconds * 1000) / TICK_MS)
  return [
    equal('run.early end', error ?? 'none', 'none'),
    atLeast('epochs.opened', fates.length, ticks, ''),
    atLeast('epochs.committed', count('committed'), Math.floor(ticks * COMMITTED_PART), ''),
    note('epochs.aborted', count('aborted')),
    equal('epochs.undecided', count('undecided'), 0),
    equal('epochs.contradicted', count('contradicted'), 0),
    atMost('epochs.openMs.most', Math.max(...openMs), EPOCH_DEADLINE_MS + GRACE_MS, 'ms'),
    atLeast('peers.killed', killed.length, 1, ''),
    atLeast('peers.joined', joined.length, 1, ''),
    equal('restores', restored.length, count('committed')),
    equal('restores.unsound', unsound, 0),
    ...cutChecks(seconds, found.cuts),
    ...spread('epochs.skewMs', found.skewsMs),
    ...spread('epochs.commitMs', found.commitsMs),
    ...spread('cuts.pauseMs', found.pausesMs),
    ...spread('cuts.prepareMs', found.preparesMs),
    ...spread('cuts.leadMs', found.leadsMs),
    equal('leftovers', leftovers.length, 0)
  ]
}

function cutChecks(seconds: number, cuts: CutVerdict): Check[] {
  const full = seconds >= FULL_SECONDS
  const some = (name: string, value: number, least: number): Check =>
    full ? atLeast(name, value, least, '') : note(name, value)
  return [
    some('frames', cuts.frames, FRAMES),
    // With none of these the zeros below would say nothing.
    some('frames.early that waited', cuts.waited, 1),
    some('images.in flight', cuts.inFlight, 1),
    note('images.untaken', cuts.untaken),
    note('images.duplicates', cuts.duplicates),
    note('images.replayed', cuts.replayed),
    equal('frames.lost', cuts.lost, 0),
    note('frames.lost as a peer died', cuts.lostInDeaths),
    equal('cuts.early delivered', cuts.early, 0),
    equal('cuts.missing in images', cuts.missing, 0),
    equal('cuts.sent after the cut', cuts.future, 0),
    equal('cuts.sent by nobody', cuts.strange + cuts.unknown, 0),
    equal('cuts.unseen', cuts.unseen, 0),
    equal('cuts.QEMU not asked', cuts.unread, 0)
  ]
}

function sabotageChecks(sabotage: Sabotage, cuts: CutVerdict): Check[] {
  return Object.entries(cuts).flatMap(([name, count]) => {
    if (typeof count !== 'number') return []
    return [name === FOUND_AS[sabotage] ? atLeast(`cuts.${name}`, count, 1, '') : note(`cuts.${name}`, count)]
  })
}

function textOf({ fates, cuts, restored }: Found): string[] {
  const soundness = new Map(restored.map(({ epoch, faults }) => [epoch, faults.length === 0 ? 'sound' : faults[0]]))
  const rows = fates.map(({ epoch, outcome, openedMs, decidedMs, reason }) => [
    `${epoch}`,
    outcome,
    decidedMs === undefined ? '' : `${Math.round(decidedMs - openedMs)} ms`,
    soundness.get(epoch) ?? reason
  ])
  return [...table([['epoch', '', 'open for', ''], ...rows]), '', ...cuts.examples]
}
