/** Whom people are told by: the API's `NotificationView` over the agent that tells them. */
import type { NotificationTarget } from '../../config/notices.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { Notifications } from '../agents/notifications.ts'
import type { NotificationView, NotifyTestWish, TargetStatus, TargetTest } from '../edge/notification-view.ts'
import { DiapauseError, messageOf, UsageError } from '../errors.ts'
import type { Clock } from '../ports.ts'

/** A target is tried so often. A guess: what it costs whoever is told is his, and not this peer's. */
const TEST_EVERY_MS = 10_000

export interface NotificationOperationsDeps {
  readonly self: PeerId
  readonly targets: readonly NotificationTarget[]
  readonly notifications: Notifications
  readonly nameOf: (peer: PeerId) => string
  readonly clock: Pick<Clock, 'now'>
}

export class NotificationOperations implements NotificationView {
  readonly #deps: NotificationOperationsDeps
  /** By target: when its last test began, by the clock; and those that are under way. */
  readonly #testedMs = new Map<string, number>()
  readonly #testing = new Set<string>()

  constructor(deps: NotificationOperationsDeps) {
    this.#deps = deps
  }

  targets(): readonly TargetStatus[] {
    const { self, targets, notifications, nameOf } = this.#deps
    return targets.map(target => ({
      name: target.name,
      way: target.command === undefined ? 'webhook' : 'command',
      on: target.on,
      teller: nameOf(notifications.speakerOf(target) ?? self),
      waiting: notifications.waiting(target.name),
      last: notifications.lastOf(target.name) ?? null
    }))
  }

  async test({ name }: NotifyTestWish): Promise<readonly TargetTest[]> {
    const { targets } = this.#deps
    const chosen = name === undefined ? targets : targets.filter(target => target.name === name)
    if (targets.length === 0) {
      throw new UsageError('TARGETS_NONE', 'This peer tells nobody: put [[notifications]] into its config.')
    }
    if (chosen.length === 0) {
      const known = targets.map(target => target.name).join(', ')
      throw new UsageError('TARGET_UNKNOWN', `This peer has no target "${name ?? ''}"; it has ${known}.`)
    }
    for (const target of chosen) this.#requireRest(target.name)
    return await Promise.all(chosen.map(target => this.#test(target)))
  }

  #requireRest(name: string): void {
    const restMs = (this.#testedMs.get(name) ?? Number.NEGATIVE_INFINITY) + TEST_EVERY_MS - this.#deps.clock.now()
    if (restMs <= 0 && !this.#testing.has(name)) return
    const when = this.#testing.has(name) ? 'when that has ended' : `in ${Math.ceil(restMs / 1_000)} s`
    throw new DiapauseError('TARGET_BUSY', `target "${name}" is tried already, or was a moment ago: try again ${when}`)
  }

  async #test(target: NotificationTarget): Promise<TargetTest> {
    const { notifications, clock } = this.#deps
    const sinceMs = clock.now()
    this.#testedMs.set(target.name, sinceMs)
    this.#testing.add(target.name)
    const failed = await notifications
      .test(target)
      .then(() => undefined, messageOf)
      .finally(() => this.#testing.delete(target.name))
    return { name: target.name, tookMs: clock.now() - sinceMs, ...(failed !== undefined && { failed }) }
  }
}
