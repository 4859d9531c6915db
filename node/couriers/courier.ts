/** The targets of a config, and what each is told by. */
import type { NotificationTarget } from '../../config/notices.ts'
import type { Courier } from '../ports.ts'
import { runCommand } from './command.ts'
import { failed } from './errors.ts'
import { postWebhook } from './webhook.ts'

export function createCourier(targets: readonly NotificationTarget[]): Courier {
  return {
    async deliver(name, body, signal) {
      const target = targets.find(each => each.name === name)
      if (target === undefined) throw failed(name, 'there is no such target in the config of this peer')
      const limit = AbortSignal.any([signal, AbortSignal.timeout(target.timeoutMs)])
      const { command } = target
      if (command === undefined) await postWebhook(target, body, limit)
      else await runCommand({ ...target, command }, body, limit)
    }
  }
}
