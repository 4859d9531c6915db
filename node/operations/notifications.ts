/** Whom people are told by: the API's `NotificationView` over the agent that tells them. */
import type { NotificationTarget } from '../../config/notices.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { Notifications } from '../agents/notifications.ts'
import type { NotificationView, NotifyTestWish, TargetStatus, TargetTest } from '../edge/notification-view.ts'
import { messageOf, UsageError } from '../errors.ts'
import type { Clock } from '../ports.ts'

export interface NotificationOperationsDeps {
  readonly self: PeerId
  readonly targets: readonly NotificationTarget[]
  readonly notifications: Notifications
  readonly nameOf: (peer: PeerId) => string
  readonly clock: Pick<Clock, 'now'>
}

export class NotificationOperations implements NotificationView {
  readonly #deps: NotificationOperationsDeps

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
    return await Promise.all(chosen.map(target => this.#test(target)))
  }

  async #test(target: NotificationTarget): Promise<TargetTest> {
    const { notifications, clock } = this.#deps
    const sinceMs = clock.now()
    const failed = await notifications.test(target).then(() => undefined, messageOf)
    return { name: target.name, tookMs: clock.now() - sinceMs, ...(failed !== undefined && { failed }) }
  }
}
