/** What a `verify` must show before what is stored counts as full and whole. Pure. */
import type { VerifyReport } from '../../node/edge/redundancy-view.ts'
import type { RecordSeen } from './history.ts'
import type { Step } from './scenario.ts'

/** After these what is on disk is read, too: what was acknowledged and never written is not missed before. */
export const triesDisks = (fault: string): boolean => /disk$|fsync$|power-loss$/.test(fault)

export interface Wanted {
  readonly vm: string
  readonly epoch: number
}

/** Images that were kept all the time from one record to the next. */
export function wantedOf(before: RecordSeen, now: RecordSeen): Wanted[] {
  const [old, all] = [keptIn(before), keptIn(now)]
  return [...all].filter(([epoch]) => old.has(epoch)).flatMap(([epoch, vms]) => vms.map(vm => ({ vm, epoch })))
}

const keptIn = ({ committed, kept = [] }: RecordSeen): Map<number, string[]> =>
  new Map(
    [...(committed === null ? [] : [committed]), ...kept].map(({ epoch, images }) => [epoch, Object.keys(images)])
  )

/** What any `m` hosts could not be lost for; empty: nothing. An image that the report does not name is not there. */
export function lacking(report: VerifyReport, m: number, wanted: readonly Wanted[]): string {
  const { missing, damaged, unreadable, silent, images } = report
  const weak = images.filter(({ tolerates }) => tolerates < m)
  const untold = wanted.filter(({ vm, epoch }) => !images.some(image => image.vm === vm && image.epoch === epoch))
  return [
    ...(wanted.length === 0 ? ['no epoch is kept'] : []),
    ...untold.map(({ vm, epoch }) => `nothing is said of ${vm} at epoch ${epoch}`),
    ...(missing.length > 0
      ? [`${missing.length} columns are missing at ${names(missing.map(({ holder }) => holder))}`]
      : []),
    ...(damaged.length > 0 ? [damage(report)] : []),
    ...unreadable.map(({ what, why }) => `${what} cannot be read: ${why}`),
    ...(silent.length > 0 ? [`${names(silent)} did not answer`] : []),
    ...weak.map(({ vm, epoch, tolerates }) => `${vm} at epoch ${epoch} bears the loss of ${tolerates}`)
  ].join('; ')
}

/** Of a VM, an epoch that is under way stores one of RAM and one of each disk, of which chaos has one; as many may just be going. */
const STREAMS_ON_THEIR_WAY = 4

/** What a host stores that no kept image can need: dropped it has to be, or a disk is full of it after days. */
export function surplus(stored: readonly StoredAt[], { images, streams: needed }: VerifyReport): string[] {
  const vms = new Set(images.map(({ vm }) => vm)).size
  const most = needed + STREAMS_ON_THEIR_WAY * vms
  return stored.flatMap(({ host, streams }) =>
    streams <= most ? [] : [`${host} has ${streams} streams, and kept images need ${needed}`]
  )
}

export interface StoredAt {
  readonly host: string
  /** Of which it has columns; NaN where it does not say. */
  readonly streams: number
}

/** What hosts know to be damaged, also what others have whole: it is mended, or later rounds would find it and know of no fault. */
export const unmended = (hosts: readonly DamagedAt[]): string =>
  hosts.flatMap(({ host, damaged }) => (damaged === 0 ? [] : [`${host} has not mended ${damaged} columns`])).join('; ')

export interface DamagedAt {
  readonly host: string
  /** Columns that it has found damaged and not mended; NaN where it does not say. */
  readonly damaged: number
}

/** By these shards are damaged where they lie. Disks that fail, hang or lose their power lose nothing here that was acknowledged. */
const SPOIL: ReadonlySet<string> = new Set(['rot', 'truncation'])

/** Members whose shards are damaged by these. */
export const spoiltBy = (steps: readonly Pick<Step, 'fault' | 'host'>[]): string[] =>
  steps.filter(({ fault }) => SPOIL.has(fault)).map(({ host }) => `p${host + 1}`)

/** Columns that are damaged at members where no fault has damaged any; `hit`: those where one has. */
export function spoilt(report: VerifyReport, hit: readonly string[]): string[] {
  const damaged = report.damaged.filter(({ member }) => !hit.includes(member))
  return damaged.length === 0 ? [] : [`${damage({ damaged })}, and no fault has done that`]
}

const damage = ({ damaged }: Pick<VerifyReport, 'damaged'>): string =>
  `${damaged.length} columns are damaged at ${names(damaged.map(({ member }) => member))}`

const names = (all: readonly string[]): string => [...new Set(all)].sort().join(', ')
