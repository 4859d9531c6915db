/**
 * Which bases are forgotten: pure, and in two steps, because a base that no image refers to may be about to be used. When this
 * peer has seen that nobody refers to a stream for a while, it asks for its register to be deleted; when it has seen
 * for as long again that the register does not name it, its shards go. A VM that uses a base and has no image yet is one of
 * a group that has no committed epoch: as long as there is such a group with a base, nothing is forgotten.
 */
import { type BaseRecord, baseStream, isBaseStream } from '../../protocols/base.ts'
import { disksOf, type GroupRecord } from '../../protocols/group.ts'
import type { StreamId } from '../ports.ts'
import { parseStreamId } from './retention.ts'

/** How long each step takes at least. A guess: records of groups travel in seconds, and peers come back in minutes. */
const UNUSED_MS = 10 * 60_000

/** What is stored here of bases, and who refers to it. */
export interface BaseFacts {
  readonly streams: readonly StreamId[]
  /** Manifests of streams of bases → the stream. */
  readonly manifests: ReadonlyMap<string, StreamId>
  /** All that kept images refer to; undefined where that is not known of all of them. */
  readonly wanted: ReadonlySet<StreamId> | undefined
  readonly groups: readonly GroupRecord[]
}

export interface BasePlan {
  /** Of these bases the register is deleted if it names the stream. */
  readonly release: readonly { readonly base: string; readonly nonce: number }[]
  readonly streams: readonly StreamId[]
  readonly manifests: readonly string[]
}

export class BaseRetention {
  readonly #unusedMs: number
  /** Stream → since when nobody has referred to it, and since when its register has not named it either. */
  readonly #unused = new Map<StreamId, { readonly sinceMs: number; unnamedMs: number | undefined }>()

  /** `deadlineMs`: of an epoch, in which an image that refers to a base may be under way. */
  constructor(deadlineMs: number) {
    this.#unusedMs = Math.max(UNUSED_MS, 2 * deadlineMs)
  }

  /** Bases whose registers are to be read before `plan`: those of streams that have been unused for long enough. */
  due(facts: BaseFacts, nowMs: number): string[] {
    const stored = new Set([...facts.streams, ...facts.manifests.values()].filter(isBaseStream))
    const { wanted } = facts
    const mayBeUsed = wanted === undefined || facts.groups.some(isBeginning)
    for (const stream of this.#unused.keys()) {
      if (mayBeUsed || !stored.has(stream) || wanted.has(stream)) this.#unused.delete(stream)
    }
    if (mayBeUsed) return []
    for (const stream of stored) {
      if (!wanted.has(stream) && !this.#unused.has(stream)) {
        this.#unused.set(stream, { sinceMs: nowMs, unnamedMs: undefined })
      }
    }
    const due = [...this.#unused].filter(([, { sinceMs }]) => nowMs - sinceMs >= this.#unusedMs)
    return [...new Set(due.map(([stream]) => baseOf(stream)))]
  }

  /** `records`: what the registers of `due` bases hold, undefined where nothing. Those that could not be read are missing. */
  plan(facts: BaseFacts, records: ReadonlyMap<string, BaseRecord | undefined>, nowMs: number): BasePlan {
    const release: { base: string; nonce: number }[] = []
    const dropped = new Set<StreamId>()
    for (const [stream, unused] of this.#unused) {
      const base = baseOf(stream)
      if (nowMs - unused.sinceMs < this.#unusedMs || !records.has(base)) continue
      const record = records.get(base)
      if (record !== undefined && baseStream(base, record.nonce) === stream) {
        release.push({ base, nonce: record.nonce })
        unused.unnamedMs = undefined
        continue
      }
      unused.unnamedMs ??= nowMs
      if (nowMs - unused.unnamedMs >= this.#unusedMs) dropped.add(stream)
    }
    return {
      release,
      streams: facts.streams.filter(stream => dropped.has(stream)),
      manifests: [...facts.manifests].flatMap(([hash, stream]) => (dropped.has(stream) ? [hash] : []))
    }
  }

  /** Something here waits for its time. */
  get waits(): boolean {
    return this.#unused.size > 0
  }
}

const baseOf = (stream: StreamId): string => parseStreamId(stream)?.vm ?? ''

/** Its VMs may use bases that no image says of. */
const isBeginning = ({ removed, committed, vms }: GroupRecord): boolean =>
  !removed && committed === null && vms.some(vm => disksOf(vm).some(({ base }) => base !== undefined))
