/**
 * What the peers tell on their event streams, as far as the demo reads it. Pure. `atMs` is wall-clock time: all peers
 * of a demo are on one host, so their times compare.
 */
import type { ImageStats } from '../../node/ports.ts'

type About = { readonly atMs: number; readonly group: string }
type AboutVm = About & { readonly vm: string }
type AboutLease = { readonly atMs: number; readonly key: string; readonly generation: number }
type AboutEpoch = About & { readonly epoch: number }

/** The kinds the demo reads, of the events a peer emits (node/edge/events.ts leaves their fields open). */
export type KnownEvent =
  | {
      readonly kind: 'liveness'
      readonly atMs: number
      readonly peer: string
      readonly liveness: string
      readonly why: string
    }
  | (AboutVm & { readonly kind: 'vm.started'; readonly generation: number })
  | (AboutEpoch & { readonly kind: 'epoch.opened' })
  | (AboutVm &
      AboutEpoch & {
        readonly kind: 'cut'
        readonly pauseMs: number
        readonly cutAtMs: number
        readonly prepareMs?: number
        readonly leadMs?: number
      })
  | (AboutVm & AboutEpoch & { readonly kind: 'epoch.durable'; readonly stats: ImageStats })
  | (AboutEpoch & { readonly kind: 'epoch.committed'; readonly commitMs: number; readonly skewMs?: number })
  | (AboutEpoch & { readonly kind: 'epoch.aborted'; readonly reason: string })
  | (AboutEpoch & {
      readonly kind: 'takeover.decided'
      readonly generation: number
      readonly owners: Readonly<Record<string, string>>
      readonly lost: readonly string[]
    })
  | (AboutVm &
      AboutEpoch & {
        readonly kind: 'vm.resumed'
        readonly generation: number
        readonly spawnToRunMs?: number
        readonly from?: 'standby' | 'shards'
        /** Why not from a standby copy, where the VM asks for one. */
        readonly noStandby?: string
      })
  | (AboutVm & { readonly kind: 'vm.failed'; readonly reason: string })
  | (AboutVm & { readonly kind: 'vm.destroyed'; readonly generation: number })
  | (AboutLease & { readonly kind: 'lease.lapsed' })
  | (AboutLease & { readonly kind: 'lease.lost'; readonly newer: number })
  | (AboutVm & {
      readonly kind: 'vm.complete'
      readonly generation: number
      readonly pagesFaulted: number
      readonly pagesPushed: number
    })

/** An event and the name of the peer on whose stream it came. */
export interface SeenEvent {
  readonly by: string
  readonly event: KnownEvent
}

export type EventOf<Kind extends KnownEvent['kind']> = Extract<KnownEvent, { kind: Kind }>

/** Field names whose type a reader of each kind relies on. */
const needed: Record<KnownEvent['kind'], Record<string, 'string' | 'number' | 'object'>> = {
  liveness: { peer: 'string', liveness: 'string', why: 'string' },
  'vm.started': { group: 'string', vm: 'string', generation: 'number' },
  'epoch.opened': { group: 'string', epoch: 'number' },
  cut: { group: 'string', vm: 'string', epoch: 'number', pauseMs: 'number', cutAtMs: 'number' },
  'epoch.durable': { group: 'string', vm: 'string', epoch: 'number', stats: 'object' },
  'epoch.committed': { group: 'string', epoch: 'number', commitMs: 'number' },
  'epoch.aborted': { group: 'string', epoch: 'number', reason: 'string' },
  'takeover.decided': { group: 'string', epoch: 'number', generation: 'number', owners: 'object', lost: 'object' },
  'vm.resumed': { group: 'string', vm: 'string', epoch: 'number', generation: 'number' },
  'vm.destroyed': { group: 'string', vm: 'string', generation: 'number' },
  'lease.lapsed': { key: 'string', generation: 'number' },
  'lease.lost': { key: 'string', generation: 'number', newer: 'number' },
  'vm.failed': { group: 'string', vm: 'string', reason: 'string' },
  'vm.complete': { group: 'string', vm: 'string', generation: 'number', pagesFaulted: 'number', pagesPushed: 'number' }
}

/** The event in a line of a stream; undefined for kinds the demo does not read. Throws TypeError on a wrong shape. */
export function readEvent(value: unknown): KnownEvent | undefined {
  const fields = value as Record<string, unknown> | null
  if (typeof fields !== 'object' || fields === null || typeof fields['kind'] !== 'string')
    throw new TypeError('not an event')
  if (!Object.hasOwn(needed, fields['kind'])) return undefined
  const types = { atMs: 'number', ...needed[fields['kind'] as KnownEvent['kind']] }
  for (const [name, type] of Object.entries(types))
    if (typeof fields[name] !== type || fields[name] === null)
      throw new TypeError(`event ${fields['kind']}: ${name} should be a ${type}, not ${JSON.stringify(fields[name])}`)
  return fields as KnownEvent
}
