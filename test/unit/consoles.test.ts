/** Consoles of VMs, wherever they run: two peers with real files and the real language between them; only the wire is not real. */
import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { ConsoleLine } from '../../node/edge/console-view.ts'
import { DiapauseError } from '../../node/errors.ts'
import { systemClock } from '../../node/host/clock.ts'
import { ConsoleLogs } from '../../node/host/console-log.ts'
import { ConsoleOperations } from '../../node/operations/consoles.ts'
import type { ControlBus } from '../../node/ports.ts'
import { MAX_READ_BYTES } from '../../protocols/console/messages.ts'
import { ConsoleExchange } from '../../protocols/console/shell.ts'
import type { GroupRecord } from '../../protocols/group.ts'

let folder: string
/** Who runs the VM, by what every peer knows. */
let owner: string
let cut: boolean
let rests: boolean
let stop: AbortController
let peers: Map<string, { deliver(from: string, message: unknown): void; typed: string[] }>
let looker: ConsoleOperations

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'diapause-consoles-'))
  owner = 'elm'
  cut = false
  rests = false
  stop = new AbortController()
  peers = new Map()
  const made = ['oak', 'elm', 'ash'].map(self => peer(self))
  looker = made[0] as ConsoleOperations
})
afterEach(() => {
  stop.abort()
  rmSync(folder, { recursive: true })
})

function peer(self: string): ConsoleOperations {
  const typed: string[] = []
  const bus: ControlBus = {
    self,
    send: (to, _protocol, message) => {
      if (cut) return false
      setImmediate(() => peers.get(to)?.deliver(self, JSON.parse(JSON.stringify(message))))
      return true
    },
    on: (_protocol, parse, handler) => {
      peers.set(self, { deliver: (from, message) => handler(from, parse(message)), typed })
    }
  }
  mkdirSync(join(folder, self, 'console'), { recursive: true })
  const logs = new ConsoleLogs(join(folder, self), systemClock, MAX_READ_BYTES)
  const own = {
    read: (question: Parameters<ConsoleLogs['read']>[0]) => logs.read(question),
    type: async (group: string, vm: string, text: string) => {
      if (owner !== self) throw new DiapauseError('VM_ELSEWHERE', `VM ${vm} does not run on this peer.`)
      typed.push(`${group}/${vm}: ${text}`)
    }
  }
  const exchange = new ConsoleExchange({
    bus,
    clock: systemClock,
    read: own.read,
    type: ({ group, vm, text }) => own.type(group, vm, text)
  })
  const record = () => ({ id: 'shop', vms: [{ id: 'till' }], owners: { till: owner }, resting: rests, removed: false })
  const directory = { get: (id: string) => (id === 'shop' ? (record() as unknown as GroupRecord) : undefined) }
  return new ConsoleOperations({ self, directory, clock: systemClock, exchange, own, nameOf: id => id })
}

const says = (host: string, text: string): void => appendFileSync(join(folder, host, 'console', 'shop.till.log'), text)

const look = (follow: boolean, history = 100): AsyncIterator<ConsoleLine> =>
  looker.read({ group: 'shop', vm: 'till', history, follow }, stop.signal)[Symbol.asyncIterator]()

async function next(lines: AsyncIterator<ConsoleLine>): Promise<unknown> {
  const { value, done } = await lines.next()
  if (done === true) return 'end'
  const line: ConsoleLine = value
  return 'data' in line ? Buffer.from(line.data, 'base64').toString() : line
}

/** Pieces come as they are read; what is in them is what counts. */
async function heard(lines: AsyncIterator<ConsoleLine>, text: string): Promise<void> {
  let all = ''
  while (all.length < text.length) all += String(await next(lines))
  expect(all).toBe(text)
}

describe('the console of a VM on another host', () => {
  it('tells its last words, and ends where nobody follows', async () => {
    says('elm', `${'x'.repeat(200)}login: `)
    const lines = look(false, 7)
    expect(await next(lines)).toEqual({ host: 'elm' })
    await heard(lines, 'login: ')
    expect(await next(lines)).toBe('end')
  })

  it('tells all that is said from then on, each byte once, however much that is', async () => {
    const lines = look(true)
    expect(await next(lines)).toEqual({ host: 'elm' })
    says('elm', 'login: ')
    await heard(lines, 'login: ')
    const much = 'much\n'.repeat(MAX_READ_BYTES / 2)
    says('elm', much)
    await heard(lines, much)
  })

  it('goes with its VM to another host', async () => {
    says('elm', 'on elm')
    const lines = look(true)
    expect(await next(lines)).toEqual({ host: 'elm' })
    await heard(lines, 'on elm')
    owner = 'ash'
    expect(await next(lines)).toEqual({ host: 'ash' })
    says('ash', 'on ash')
    await heard(lines, 'on ash')
    owner = 'oak'
    expect(await next(lines)).toEqual({ host: 'oak' })
    says('oak', 'at home')
    await heard(lines, 'at home')
  })

  it('says once that the host does not answer, and goes on when it does', async () => {
    cut = true
    const lines = look(true)
    expect(await next(lines)).toEqual({ host: 'elm' })
    expect(await next(lines)).toEqual({ note: expect.stringContaining('elm does not answer') })
    says('elm', 'back')
    cut = false
    await heard(lines, 'back')
  })

  it('is refused where nobody follows and the host does not answer', async () => {
    cut = true
    const lines = look(false)
    await next(lines)
    await expect(next(lines)).rejects.toMatchObject({ code: 'CONSOLE_SILENT' })
  })

  it('takes what is typed, and passes on why it cannot', async () => {
    await looker.type('shop', 'till', 'ls\n')
    expect(peers.get('elm')?.typed).toEqual(['shop/till: ls\n'])
    await expect(looker.type('shop', 'tills', 'ls\n')).rejects.toMatchObject({ code: 'VM_UNKNOWN' })
    await expect(looker.type('shops', 'till', 'ls\n')).rejects.toMatchObject({ code: 'GROUP_UNKNOWN' })
    rests = true
    const resting = { code: 'GROUP_RESTS', message: expect.stringContaining('diapause vm start shop') as string }
    await expect(looker.type('shop', 'till', 'ls\n')).rejects.toMatchObject(resting)
    rests = false
    const moved = looker.type('shop', 'till', 'ls\n')
    owner = 'ash' // decided while the question was under way
    await expect(moved).rejects.toMatchObject({ code: 'VM_ELSEWHERE' })
  })
})
