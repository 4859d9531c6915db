/**
 * Carries out `protocols/notifications/core.ts`: says what it wants said, delivers through the courier with tries of its own, and
 * remembers for people what became of it.
 */
import type { NotificationTarget } from '../../config/notices.ts'
import { Alarm } from '../../protocols/alarm.ts'
import type { PeerId } from '../../protocols/core.ts'
import { NoticeCore, type NoticeEffect, type NoticeInput } from '../../protocols/notifications/core.ts'
import {
  NOTIFICATIONS_PROTOCOL,
  type Notice,
  parseNotificationMessage
} from '../../protocols/notifications/messages.ts'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { Clock, ControlBus, Courier, FailureDetector, Log, NotificationBody, Transport } from '../ports.ts'
import type { Report } from './host-parts.ts'

/** After a try that failed, until the next. A guess: a service that is restarted; with tries of 30 s within CLAIM_MS. */
const AGAIN_MS = [1_000, 5_000, 15_000]

export interface NotificationsDeps {
  readonly self: PeerId
  readonly cluster: string
  readonly targets: readonly NotificationTarget[]
  readonly courier: Courier
  readonly bus: ControlBus
  readonly transport: Pick<Transport, 'onConnection'>
  readonly detector: Pick<FailureDetector, 'alive' | 'onChange'>
  readonly members: () => readonly PeerId[]
  readonly nameOf: (peer: PeerId) => string
  readonly clock: Clock
  readonly wallMs: () => number
  readonly log: Log
  readonly report: Report
}

/** What became of the last message to a target. */
export interface Delivery {
  readonly atMs: number
  readonly notices: number
  /** Why nobody was told. Absent: they were. */
  readonly failed?: string | undefined
}

export class Notifications {
  readonly #deps: NotificationsDeps
  readonly #core: NoticeCore
  readonly #alarm: Alarm
  readonly #stop = new AbortController()
  readonly #last = new Map<string, Delivery>()
  readonly #counts = { delivered: 0, failed: 0, lost: 0 }

  constructor(deps: NotificationsDeps) {
    this.#deps = deps
    this.#core = new NoticeCore(deps.self, deps.targets)
    this.#alarm = new Alarm(deps.clock, () => this.feed({ kind: 'timer' }))
    deps.bus.on(NOTIFICATIONS_PROTOCOL, parseNotificationMessage, (from, message) => {
      if (deps.members().includes(from) && from !== deps.self) this.feed({ kind: 'message', from, message })
    })
    deps.transport.onConnection((peer, connected) => {
      if (connected) this.feed({ kind: 'connected', peer })
    })
    deps.detector.onChange(() => this.feed({ kind: 'alive', peers: deps.detector.alive() }))
  }

  /** The members changed, or this peer begins. */
  look(): void {
    this.feed({ kind: 'alive', peers: this.#deps.detector.alive() })
  }

  stop(): void {
    this.#alarm.set(Number.POSITIVE_INFINITY)
    this.#stop.abort()
  }

  feed(input: NoticeInput): void {
    if (this.#stop.signal.aborted) return
    for (const effect of this.#core.step(input, this.#deps.clock.now())) this.#apply(effect)
  }

  get counts(): Readonly<{ delivered: number; failed: number; lost: number }> {
    return this.#counts
  }

  lastOf(target: string): Delivery | undefined {
    return this.#last.get(target)
  }

  waiting(target: string): number {
    return this.#core.waiting().get(target) ?? 0
  }

  /** Who tells this target, unless it dies: by the first kind that it is told of. */
  speakerOf({ name, on }: NotificationTarget): PeerId | undefined {
    return on[0] && this.#core.speaker(name, on[0])
  }

  /** From this peer, now and once. NOTIFICATION_FAILED, NOTIFICATION_REFUSED. */
  async test(target: NotificationTarget): Promise<void> {
    const text = `This is a test of notifications of cluster ${this.#deps.cluster}: nothing has happened.`
    const test = {
      key: 'test',
      kind: target.on[0] ?? 'failover',
      state: 'once',
      text,
      atMs: this.#deps.wallMs()
    } as const
    try {
      await this.#once(target.name, [test], 0)
    } catch (error) {
      this.#deps.log.warn(
        { target: target.name, error: messageOf(error), ...saidOf(error) },
        'a test was not delivered'
      )
      throw error
    }
  }

  #apply(effect: NoticeEffect): void {
    const { self, bus, members, log, report } = this.#deps
    switch (effect.kind) {
      case 'send': {
        const to = effect.to === 'all' ? members().filter(peer => peer !== self) : [effect.to]
        for (const peer of to) bus.send(peer, NOTIFICATIONS_PROTOCOL, effect.message)
        return
      }
      case 'deliver':
        return void this.#deliver(effect.target, effect.notices, effect.left)
      case 'lost': {
        this.#counts.lost += effect.notices.length
        const { target, notices } = effect
        log.error({ target, notices: notices.map(({ text }) => text) }, 'nobody could be told of this')
        return report('notification.lost', { target, notices: notices.length })
      }
      case 'timer':
        return this.#alarm.set(effect.atMs)
    }
  }

  async #deliver(target: string, notices: readonly Notice[], left: number): Promise<void> {
    const { log, report, wallMs } = this.#deps
    for (let tries = 0; ; tries++) {
      try {
        await this.#once(target, notices, left)
        this.#counts.delivered++
        this.#last.set(target, { atMs: wallMs(), notices: notices.length })
        log.info({ target, keys: notices.map(({ key }) => key) }, 'people were told')
        return this.feed({ kind: 'delivered', target })
      } catch (error) {
        if (this.#stop.signal.aborted) return
        const waitMs = AGAIN_MS[tries]
        log.warn({ target, error: messageOf(error), ...saidOf(error), tries: tries + 1 }, 'people could not be told')
        if (waitMs === undefined || hasCode(error, 'NOTIFICATION_REFUSED')) {
          this.#counts.failed++
          const isNews = this.#last.get(target)?.failed === undefined
          this.#last.set(target, { atMs: wallMs(), notices: notices.length, failed: messageOf(error) })
          if (isNews) report('notification.failed', { target, reason: messageOf(error) })
          return this.feed({ kind: 'failed', target })
        }
        await this.#pause(Math.min(Math.max(waitMs, retryAfterOf(error)), Math.max(...AGAIN_MS)))
      }
    }
  }

  async #once(target: string, notices: readonly Notice[], left: number): Promise<void> {
    const { courier, cluster, self, nameOf } = this.#deps
    const more = left === 0 ? [] : [`(${left} older ones are left out: they came faster than they may be told.)`]
    const text = [...notices.map(notice => notice.text), ...more].join('\n')
    const body: NotificationBody = { text, cluster, peer: nameOf(self), notices, left }
    await courier.deliver(target, body, this.#stop.signal)
  }

  #pause(ms: number): Promise<void> {
    return new Promise(resolve => {
      const end = (): void => {
        cancel()
        this.#stop.signal.removeEventListener('abort', end)
        resolve()
      }
      const cancel = this.#deps.clock.after(ms, end)
      this.#stop.signal.addEventListener('abort', end)
    })
  }
}

/** What a command said on standard error: for the log of this peer and nobody else. */
function saidOf(error: unknown): { readonly said?: unknown } {
  const said = error instanceof DiapauseError ? error.details['said'] : undefined
  return said === undefined ? {} : { said }
}

function retryAfterOf(error: unknown): number {
  const after = error instanceof DiapauseError ? error.details['retryAfterMs'] : undefined
  return typeof after === 'number' ? after : 0
}
