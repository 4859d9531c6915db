/**
 * Failovers, and groups that were taken back by hand, out of the events of all peers: who was suspected when, what was decided,
 * when each VM ran again and when it had all of its pages. Pure; computed anew from the events that the page has.
 */
import type { ClusterEvent } from '../../edge/cluster-events-view.ts'

export interface FailoverVm {
  readonly vm: string
  /** Id of the member where it runs now. */
  readonly to: string
  /** Its host was lost; others of the group go back in place. */
  readonly lost: boolean
  readonly resumedMs: number | undefined
  readonly completeMs: number | undefined
  readonly failed: string | undefined
}

export interface Failover {
  readonly group: string
  readonly generation: number
  readonly epoch: number
  readonly byHand: boolean
  /** Ids of the members whose loss led to it. */
  readonly hosts: readonly string[]
  /** First suspicion, declared dead, decided; the first two are undefined where no event told them. */
  readonly suspectedMs: number | undefined
  readonly deadMs: number | undefined
  readonly decidedMs: number
  readonly vms: readonly FailoverVm[]
  /** When the last VM ran; undefined: not all do yet. */
  readonly backMs: number | undefined
  /** When the last page of the last VM had come. */
  readonly wholeMs: number | undefined
  /** A newer generation took its place before it ended. */
  readonly overtaken: boolean
}

/** A member that is held for suspect or dead, by the first who said so. */
export interface Trouble {
  readonly peer: string
  readonly suspectedMs: number
  readonly deadMs: number | undefined
}

/** Suspicions that are older than this have led to what was decided before. A guess: twice the longest suspicion and vote. */
const LED_TO_MS = 60_000

/** The newest first. */
export function failoversOf(events: readonly ClusterEvent[]): Failover[] {
  const made = new Map<string, Draft>()
  const troubles = new Map<string, Trouble>()
  for (const { event, atMs, by } of events) {
    if (event.kind === 'liveness') takeLiveness(troubles, event, atMs)
    else if (event.kind === 'takeover.decided' || event.kind === 'group.restored') begin(made, event, atMs, troubles)
    else if (/^vm\.(resumed|started|complete|failed)$/.test(event.kind)) takeVm(made, event, atMs, by)
  }
  const newest = new Map<string, number>()
  for (const { group, generation } of made.values()) {
    newest.set(group, Math.max(newest.get(group) ?? 0, generation))
  }
  return [...made.values()].map(draft => finished(draft, newest)).toSorted((a, b) => b.decidedMs - a.decidedMs)
}

/** Members that somebody suspects now, and whom nobody has heard since. */
export function troublesOf(events: readonly ClusterEvent[]): Trouble[] {
  const troubles = new Map<string, Trouble>()
  for (const { event, atMs } of events) if (event.kind === 'liveness') takeLiveness(troubles, event, atMs)
  return [...troubles.values()]
}

interface Draft extends Omit<Failover, 'vms' | 'backMs' | 'wholeMs' | 'overtaken'> {
  readonly vms: Map<string, FailoverVm>
}

type Fields = Readonly<Record<string, unknown>>

function takeLiveness(troubles: Map<string, Trouble>, { peer, liveness }: Fields, atMs: number): void {
  if (typeof peer !== 'string') return
  const known = troubles.get(peer)
  if (liveness === 'alive') troubles.delete(peer)
  else if (liveness === 'suspect' && known === undefined)
    troubles.set(peer, { peer, suspectedMs: atMs, deadMs: undefined })
  else if (liveness === 'dead' && known?.deadMs === undefined)
    troubles.set(peer, { peer, suspectedMs: known?.suspectedMs ?? atMs, deadMs: atMs })
}

function begin(made: Map<string, Draft>, fields: Fields, atMs: number, troubles: Map<string, Trouble>): void {
  const { group, generation, epoch, kind } = fields
  if (typeof group !== 'string' || typeof generation !== 'number' || typeof epoch !== 'number') return
  const key = `${group} ${generation}`
  if (made.has(key)) return
  const byHand = kind === 'group.restored'
  const led = byHand ? [] : [...troubles.values()].filter(({ suspectedMs }) => atMs - suspectedMs < LED_TO_MS)
  const dead = led.flatMap(({ deadMs }) => deadMs ?? [])
  const lost = new Set(Array.isArray(fields['lost']) ? fields['lost'].map(String) : [])
  const vms = Object.entries(ownersOf(fields)).map(
    ([vm, to]) =>
      [vm, { vm, to, lost: lost.has(vm), resumedMs: undefined, completeMs: undefined, failed: undefined }] as const
  )
  made.set(key, {
    group,
    generation,
    epoch,
    byHand,
    hosts: led.map(({ peer }) => peer),
    suspectedMs: led.length === 0 ? undefined : Math.min(...led.map(({ suspectedMs }) => suspectedMs)),
    deadMs: dead.length === 0 ? undefined : Math.min(...dead),
    decidedMs: atMs,
    vms: new Map(vms)
  })
}

function ownersOf({ owners }: Fields): Readonly<Record<string, string>> {
  if (typeof owners !== 'object' || owners === null) return {}
  return Object.fromEntries(Object.entries(owners).map(([vm, owner]) => [vm, String(owner)]))
}

function takeVm(made: Map<string, Draft>, fields: Fields, atMs: number, by: string): void {
  const { group, vm, generation, kind, reason } = fields
  if (typeof group !== 'string' || typeof vm !== 'string' || typeof generation !== 'number') return
  const draft = made.get(`${group} ${generation}`)
  if (draft === undefined) return
  const old = draft.vms.get(vm) ?? {
    vm,
    to: by,
    lost: false,
    resumedMs: undefined,
    completeMs: undefined,
    failed: undefined
  }
  if (kind === 'vm.failed')
    draft.vms.set(vm, { ...old, failed: typeof reason === 'string' ? reason : 'for no reason that was told' })
  else if (kind === 'vm.complete') draft.vms.set(vm, { ...old, completeMs: atMs })
  else draft.vms.set(vm, { ...old, to: by, resumedMs: atMs, failed: undefined })
}

function finished(draft: Draft, newest: ReadonlyMap<string, number>): Failover {
  const vms = [...draft.vms.values()]
  const last = (name: 'resumedMs' | 'completeMs'): number | undefined => {
    const times = vms.flatMap(vm => vm[name] ?? [])
    return times.length > 0 && times.length === vms.length ? Math.max(...times) : undefined
  }
  const overtaken = (newest.get(draft.group) ?? 0) > draft.generation
  return { ...draft, vms, backMs: last('resumedMs'), wholeMs: last('completeMs'), overtaken }
}

/** It still goes on, as far as is known. */
export const isRunning = ({ backMs, overtaken }: Failover): boolean => backMs === undefined && !overtaken
