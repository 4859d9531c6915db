import { describe, expect, it } from 'vitest'
import type { NoticeKind } from '../../config/notices.ts'
import { targetSchema } from '../../config/notices.ts'
import { checkConfig } from '../../config/parse.ts'
import { Notifications } from '../../node/agents/notifications.ts'
import { commandEnvironment } from '../../node/couriers/command.ts'
import { errorReply } from '../../node/edge/api-answer.ts'
import { targetsText } from '../../node/edge/cli-notify.ts'
import { DiapauseError } from '../../node/errors.ts'
import { NotificationOperations } from '../../node/operations/notifications.ts'
import type { ControlBus, NotificationBody } from '../../node/ports.ts'
import { JumpingClock } from './jumping-clock.ts'
import { memoryLog } from './store-support.ts'

const on: NoticeKind[] = ['failover']
const pager = targetSchema.parse({ name: 'pager', on, webhook: 'https://pager.example/secret' })

/** One peer of two with a courier that takes what `take` says. */
function world(take: (text: string) => void) {
  const clock = new JumpingClock()
  const bodies: NotificationBody[] = []
  const reports: string[] = []
  const details: object[] = []
  const log = memoryLog()
  const bus: ControlBus = { self: 'A', send: () => true, on: () => {} }
  const notifications = new Notifications({
    self: 'A',
    cluster: 'home',
    targets: [pager],
    courier: {
      deliver: (_, body) => {
        take(body.text)
        bodies.push(body)
        return Promise.resolve()
      }
    },
    bus,
    transport: { onConnection: () => {} },
    detector: { alive: () => ['A'], onChange: () => {} },
    members: () => ['A', 'B'],
    nameOf: peer => `host-${peer.toLowerCase()}`,
    clock,
    wallMs: () => 0,
    log,
    report: (kind, fields) => {
      reports.push(kind)
      details.push(fields)
    }
  })
  notifications.look()
  const shared = { self: 'A', targets: [pager], notifications, nameOf: (peer: string) => `host-${peer}`, clock }
  const see = (): void => {
    const notice = { key: 'failover/shop/2', kind: 'failover', state: 'once', text: 'shop moved', atMs: 0 } as const
    notifications.feed({ kind: 'notice', notice })
  }
  return {
    clock,
    bodies,
    reports,
    details,
    lines: log.lines,
    notifications,
    view: new NotificationOperations(shared),
    see
  }
}

const fails = (code: string) => () => {
  throw new DiapauseError(code, 'not delivered')
}

describe('what people are told', () => {
  it('is tried again a few times, and again later when nobody could', async () => {
    let tries = 0
    const { clock, bodies, reports, see, view } = world(() => {
      if (tries++ < 4) throw new DiapauseError('NOTIFICATION_FAILED', 'no answer')
    })
    see()
    await clock.until(clock.nowMs + 30_000)
    expect({ tries, told: bodies.length, reports }).toEqual({ tries: 4, told: 0, reports: ['notification.failed'] })
    expect(view.targets()[0]).toMatchObject({ name: 'pager', waiting: 1, last: { notices: 1, failed: 'no answer' } })
    await clock.until(clock.nowMs + 60_000)
    expect(bodies.map(({ text, cluster, peer }) => [text, cluster, peer])).toEqual([['shop moved', 'home', 'host-a']])
    expect(view.targets()[0]).toMatchObject({ waiting: 0, last: { notices: 1 } })
  })

  it('is not tried again at once by a peer that was refused', async () => {
    let tries = 0
    const { clock, see } = world(() => {
      tries++
      fails('NOTIFICATION_REFUSED')()
    })
    see()
    await clock.until(clock.nowMs + 20_000)
    expect(tries).toBe(1)
  })

  it('can be tried with a message that says that it is a test', async () => {
    const { view, bodies } = world(() => {})
    expect(await view.test({})).toEqual([{ name: 'pager', tookMs: 0 }])
    expect(bodies[0]?.text).toContain('test')
    await expect(view.test({ name: 'pigeon' })).rejects.toThrow('it has pager')
    const broken = world(fails('NOTIFICATION_REFUSED')).view
    expect(await broken.test({ name: 'pager' })).toEqual([{ name: 'pager', tookMs: 0, failed: 'not delivered' }])
  })

  it('is tried once at a time and once in ten seconds, whether that helps or not', async () => {
    const { view, clock, bodies } = world(() => {})
    const both = await Promise.allSettled([view.test({}), view.test({ name: 'pager' })])
    expect(both.map(({ status }) => status)).toEqual(['fulfilled', 'rejected'])
    await clock.until(clock.nowMs + 9_999)
    const busy = await view.test({}).catch((error: unknown) => error)
    expect(busy).toMatchObject({ code: 'TARGET_BUSY', message: expect.stringContaining('again in 1 s') })
    expect(errorReply(busy).status).toBe(409)
    expect(bodies).toHaveLength(1)
    await clock.until(clock.nowMs + 1)
    expect(await view.test({})).toHaveLength(1)
  })

  it('stands in the log of its peer with what its command said, and nowhere else', async () => {
    const { clock, lines, details, see, view } = world(() => {
      throw new DiapauseError('NOTIFICATION_REFUSED', 'it ended with status 1', { details: { said: 'key k-1' } })
    })
    see()
    await clock.until(clock.nowMs + 20_000)
    const shown = JSON.stringify([view.targets(), await view.test({}), details])
    expect(shown).toContain('status 1')
    expect(shown).not.toContain('k-1')
    expect(lines.filter(line => JSON.stringify(line).includes('key k-1'))).toHaveLength(2)
  })

  it('is given to a command as far as a program can be given it', () => {
    const text = commandEnvironment('pager', `a\0b${'\u20ac'.repeat(100_000)}`)['DIAPAUSE_TEXT'] ?? ''
    expect(text.slice(0, 3)).toBe('ab\u20ac')
    expect(text).toHaveLength(30_000)
    expect(Buffer.byteLength(`DIAPAUSE_TEXT=${text}`)).toBeLessThan(128 << 10)
    expect(commandEnvironment('pager', 'short')['DIAPAUSE_TEXT']).toBe('short')
  })

  it('is listed for people without the URL, which is a secret', () => {
    const { view } = world(() => {})
    const text = targetsText(view.targets())
    expect(text).toMatch(/pager +webhook +host-A +0 +nothing yet +failover/)
    expect(JSON.stringify(view.targets()) + text).not.toContain('secret')
  })
})

describe('the config of notifications', () => {
  const problems = (notifications: unknown) => {
    const raw = { cluster: { name: 'c' }, peer: { name: 'p', dataDir: '/d' }, notifications }
    const parsed = checkConfig(raw)
    return parsed.ok ? [] : parsed.problems.map(({ key, expected }) => `${key}: ${expected}`)
  }

  it('has one way for each target, and a name of its own', () => {
    const webhook = 'https://a.example/x'
    expect(problems([{ name: 'a', webhook }])).toEqual([])
    expect(problems([{ name: 'a' }, { name: 'b', webhook, command: 'true' }, { name: 'a', webhook }])).toEqual([
      'notifications[0]: one of webhook, webhookFile and command',
      'notifications[1]: one of webhook, webhookFile and command',
      'notifications[2].name: another name than that of notifications[0]'
    ])
    expect(problems([{ name: 'a', command: 'true', tokenFile: '/t' }])).toHaveLength(1)
    for (const wrong of ['ftp://x', 'http://[x/', 'https://a.example:99999/']) {
      expect(problems([{ name: 'a', webhook: wrong }])).toEqual(['notifications[0].webhook: an http or https URL'])
    }
  })
})
