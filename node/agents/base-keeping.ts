/** Forgets bases that no image refers to: what `planning/base-retention.ts` says, done. */
import { baseKey, type BaseRecord, parseBaseRecord } from '../../protocols/base.ts'
import { messageOf } from '../errors.ts'
import { type BaseFacts, BaseRetention } from '../planning/base-retention.ts'
import type { Clock, Log, Registers, ShardStore } from '../ports.ts'
import { dropAll } from './dropping.ts'

export interface BaseKeepingDeps {
  readonly registers: Pick<Registers, 'read' | 'delete'>
  readonly store: Pick<ShardStore, 'dropStream' | 'dropManifest'>
  readonly clock: Pick<Clock, 'now'>
  readonly log: Log
  readonly deadlineMs: number
}

export class BaseKeeping {
  readonly #deps: BaseKeepingDeps
  readonly #retention: BaseRetention

  constructor(deps: BaseKeepingDeps) {
    this.#deps = deps
    this.#retention = new BaseRetention(deps.deadlineMs)
  }

  /** Something waits for its time: `forget` is to be called again. */
  get waits(): boolean {
    return this.#retention.waits
  }

  /** What cannot be done now is when it is called again. */
  async forget(facts: BaseFacts): Promise<void> {
    const { registers, store, clock, log } = this.#deps
    const records = new Map<string, BaseRecord | undefined>()
    for (const base of this.#retention.due(facts, clock.now())) {
      try {
        records.set(base, parseBaseRecord(await registers.read(baseKey(base))))
      } catch (error) {
        log.info({ base, error: messageOf(error) }, 'whether a base is still wanted cannot be read: its shards stay')
      }
    }
    const plan = this.#retention.plan(facts, records, clock.now())
    for (const { base, nonce } of plan.release) {
      const only = (current: unknown): boolean => parseBaseRecord(current)?.nonce === nonce
      await registers.delete(baseKey(base), { only })
    }
    await dropAll(store, plan, log)
    if (plan.streams.length > 0) log.debug({ streams: plan.streams }, 'bases forgotten')
  }
}
