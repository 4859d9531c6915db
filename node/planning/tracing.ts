/**
 * What one peer adds to the traces of epochs and restores. Nothing is carried between peers: the ids of a trace and of its whole
 * follow from the cluster, the group and the number of the epoch or generation, so all peers make the same ones, no message grows,
 * and a lost one costs nothing. The whole is told by who runs the group's first VM, each step by who did it; where a peer dies
 * before it has told, the steps of the others stand without it.
 */
import { createHash } from 'node:crypto'
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { Span } from '../ports.ts'

/** Groups of which something is under way. A guess: more than a host runs. */
const MAX_GROUPS = 1_000
/** What people are told of an error. */
const MAX_ERROR = 500

type Fields = Readonly<Record<string, unknown>>

interface Epoch {
  readonly epoch: number
  readonly openedMs: number
  /** When the last image of it was heard to be stored. */
  durableMs: number
  /** VM → the end of its pause. */
  readonly cuts: Map<string, number>
}

interface Restore {
  readonly generation: number
  /** When a host that it lost was held for dead, or when it was learned of. */
  readonly sinceMs: number
  readonly decidedMs: number
  readonly resumed: Map<string, number>
}

export interface TracingFacts {
  readonly self: PeerId
  /** The cluster's own id, not its name: two may have the same. */
  readonly cluster: string
  readonly ratio: number
}

export class Tracing {
  readonly #facts: TracingFacts
  readonly #records = new Map<string, GroupRecord>()
  readonly #epochs = new Map<string, Epoch>()
  readonly #restores = new Map<string, Restore>()
  /** Member → when this peer began to hold it for dead. */
  readonly #dead = new Map<PeerId, number>()

  constructor(facts: TracingFacts) {
    this.#facts = facts
  }

  onRecord(record: GroupRecord, atMs: number): void {
    const { id, generation, owners } = record
    const before = this.#records.get(id)
    if (record.removed) {
      for (const known of [this.#records, this.#epochs, this.#restores]) known.delete(id)
      return
    }
    remember(this.#records, id, record)
    if (before === undefined || generation <= before.generation || record.resting) return
    const left = Object.entries(before.owners).flatMap(([vm, owner]) => (owners[vm] === owner ? [] : [owner]))
    const sinceMs = Math.min(atMs, ...left.flatMap(owner => this.#dead.get(owner) ?? []))
    remember(this.#restores, id, { generation, sinceMs, decidedMs: atMs, resumed: new Map() })
  }

  /** An image of the epoch is stored, as another peer says. */
  onDurable(group: string, epoch: number, atMs: number): void {
    const known = this.#epochs.get(group)
    if (known?.epoch === epoch) known.durableMs = Math.max(known.durableMs, atMs)
  }

  onEvent(kind: string, fields: Fields, atMs: number): Span[] {
    const group = wordOf(fields['group'])
    switch (kind) {
      case 'liveness': {
        const peer = wordOf(fields['peer'])
        if (fields['liveness'] === 'dead') this.#dead.set(peer, atMs)
        else if (fields['liveness'] === 'alive') this.#dead.delete(peer)
        return []
      }
      case 'epoch.opened':
        remember(this.#epochs, group, {
          epoch: count(fields['epoch']),
          openedMs: atMs,
          durableMs: atMs,
          cuts: new Map()
        })
        return []
      case 'cut':
        return this.#onCut(group, fields)
      case 'epoch.durable':
        return this.#onOwnDurable(group, fields, atMs)
      case 'epoch.committed':
      case 'epoch.aborted':
        return this.#onOutcome(group, kind === 'epoch.committed', fields, atMs)
      case 'takeover.decided':
      case 'vm.resumed':
      case 'vm.complete':
        return this.#onRestore(kind, group, fields, atMs)
      default:
        return []
    }
  }

  #onCut(group: string, fields: Fields): Span[] {
    const known = this.#epochOf(group, fields)
    const cutAtMs = count(fields['cutAtMs'])
    if (known === undefined || cutAtMs === 0) return []
    const vm = wordOf(fields['vm'])
    const doneMs = cutAtMs + count(fields['pauseMs'])
    known.cuts.set(vm, doneMs)
    return [
      ...this.#epochSpan(group, known.epoch, 'prepare', vm, { startMs: known.openedMs, endMs: cutAtMs }),
      ...this.#epochSpan(group, known.epoch, 'cut', vm, { startMs: cutAtMs, endMs: doneMs })
    ]
  }

  #onOwnDurable(group: string, fields: Fields, atMs: number): Span[] {
    const known = this.#epochOf(group, fields)
    const vm = wordOf(fields['vm'])
    const startMs = known?.cuts.get(vm)
    if (known === undefined || startMs === undefined) return []
    known.durableMs = Math.max(known.durableMs, atMs)
    const stats = fields['stats']
    const { bytesStored, pagesChanged } = typeof stats === 'object' && stats !== null ? (stats as Fields) : {}
    const attributes = { 'image.bytes': count(bytesStored), 'image.pages': count(pagesChanged) }
    return this.#epochSpan(group, known.epoch, 'upload', vm, { startMs, endMs: atMs, attributes })
  }

  #onOutcome(group: string, committed: boolean, fields: Fields, atMs: number): Span[] {
    const known = this.#epochOf(group, fields)
    if (known === undefined) return []
    this.#epochs.delete(group)
    const record = this.#records.get(group)
    if (!this.#runsFirst(record)) return []
    const error = committed ? {} : { error: wordOf(fields['reason']).slice(0, MAX_ERROR) || 'aborted' }
    const { epoch, openedMs, durableMs } = known
    const commit = { startMs: durableMs, endMs: atMs }
    return [
      ...(committed ? this.#epochSpan(group, epoch, 'commit', '', commit) : []),
      ...this.#whole(
        `epoch ${group} ${epoch}`,
        'epoch',
        { startMs: openedMs, endMs: atMs, ...error },
        {
          group,
          epoch,
          generation: record?.generation ?? 0,
          vms: record?.vms.length ?? 0
        }
      )
    ]
  }

  #onRestore(
    kind: 'takeover.decided' | 'vm.resumed' | 'vm.complete',
    group: string,
    fields: Fields,
    atMs: number
  ): Span[] {
    const known = this.#restores.get(group)
    if (known === undefined || known.generation !== fields['generation']) return []
    const { generation, sinceMs, decidedMs, resumed } = known
    const what = `restore ${group} ${generation}`
    const attributes = { group, generation }
    if (kind === 'takeover.decided') {
      return this.#step(what, 'decide', '', { startMs: sinceMs, endMs: atMs, attributes })
    }
    const vm = wordOf(fields['vm'])
    if (kind === 'vm.complete') {
      const startMs = resumed.get(vm)
      if (startMs === undefined) return []
      return this.#step(what, 'fetch', vm, { startMs, endMs: atMs, attributes: { ...attributes, vm } })
    }
    resumed.set(vm, atMs)
    const more = { vm, epoch: count(fields['epoch']), source: wordOf(fields['from']) }
    const step = this.#step(what, 'start', vm, {
      startMs: decidedMs,
      endMs: atMs,
      attributes: { ...attributes, ...more }
    })
    const record = this.#records.get(group)
    if (!this.#runsFirst(record) || record?.vms[0]?.id !== vm) return step
    return [
      ...step,
      ...this.#whole(what, 'restore', { startMs: sinceMs, endMs: atMs }, { ...attributes, epoch: more.epoch })
    ]
  }

  #epochOf(group: string, fields: Fields): Epoch | undefined {
    const known = this.#epochs.get(group)
    return known?.epoch === fields['epoch'] ? known : undefined
  }

  #runsFirst(record: GroupRecord | undefined): boolean {
    return record?.owners[record.vms[0]?.id ?? ''] === this.#facts.self
  }

  #epochSpan(group: string, epoch: number, name: string, vm: string, part: Part): Span[] {
    const about = { group, epoch, ...(vm === '' ? {} : { vm }) }
    return this.#step(`epoch ${group} ${epoch}`, name, vm, { ...part, attributes: { ...about, ...part.attributes } })
  }

  #step(what: string, name: string, vm: string, { startMs, endMs, attributes = {} }: Part): Span[] {
    const { traceId, spanId: parentSpanId } = this.#ids(what)
    if (!this.#isTold(traceId)) return []
    const { spanId } = this.#ids(`${what} ${name} ${vm} ${this.#facts.self}`)
    return [{ traceId, spanId, parentSpanId, name, startMs: Math.min(startMs, endMs), endMs, attributes }]
  }

  #whole(what: string, name: string, { startMs, endMs, error }: Part, attributes: Span['attributes']): Span[] {
    const ids = this.#ids(what)
    if (!this.#isTold(ids.traceId)) return []
    return [{ ...ids, name, startMs, endMs, attributes, ...(error === undefined ? {} : { error }) }]
  }

  #ids(what: string): { traceId: string; spanId: string } {
    const hex = createHash('sha256').update(`${this.#facts.cluster} ${what}`).digest('hex')
    return { traceId: hex.slice(0, 32), spanId: hex.slice(32, 48) }
  }

  #isTold(traceId: string): boolean {
    return Number.parseInt(traceId.slice(0, 8), 16) < this.#facts.ratio * 2 ** 32
  }
}

interface Part {
  readonly startMs: number
  readonly endMs: number
  readonly error?: string
  readonly attributes?: Span['attributes']
}

function remember<T>(known: Map<string, T>, key: string, value: T): void {
  known.delete(key)
  known.set(key, value)
  for (const [oldest] of known) {
    if (known.size <= MAX_GROUPS) return
    known.delete(oldest)
  }
}

const wordOf = (value: unknown): string => (typeof value === 'string' ? value : '')
const count = (value: unknown): number => (typeof value === 'number' ? value : 0)
