import { mkdtemp, rm } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { backgroundSnapshot, prepare, standStill } from '../../node/hypervisor/background-snapshot.ts'
import { commonArguments } from '../../node/hypervisor/command-line.ts'
import { stopToSendDevices } from '../../node/hypervisor/device-state.ts'
import { type QemuProcess, spawnQemu } from '../../node/hypervisor/process.ts'
import { installedQemu } from '../../node/hypervisor/qemu.ts'
import { listenForQmp, QmpClient } from '../../node/hypervisor/qmp.ts'
import { receive } from './hypervisor-support.ts'
import { clock } from './real-clock.ts'

/** QEMU's side of the connection, played by the test. */
class FakeQemu {
  readonly socket: Socket
  readonly commands: { execute: string; id: number; arguments: Record<string, unknown> }[] = []
  /** What to say to a command; by default an empty reply. */
  answer = (command: { execute: string; id: number }): object[] => [{ return: {}, id: command.id }]
  #rest = ''

  constructor(socket: Socket) {
    this.socket = socket
    socket.on('error', () => {})
    socket.setEncoding('utf8').on('data', text => {
      const lines = (this.#rest + text).split('\n')
      this.#rest = lines.pop() ?? ''
      for (const line of lines) {
        const command = JSON.parse(line)
        this.commands.push(command)
        for (const message of this.answer(command)) this.say(message)
      }
    })
  }

  say(message: object): void {
    this.socket.write(`${JSON.stringify(message)}\r\n`)
  }

  greet(): void {
    this.say({ QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 } }, capabilities: ['oob'] } })
  }
}

describe('the QMP client', () => {
  let folder: string
  let qemu: FakeQemu
  let qmp: QmpClient | undefined

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'qmp-'))
  })

  afterEach(async () => {
    qmp?.close()
    qemu?.socket.destroy()
    await rm(folder, { recursive: true, force: true })
  })

  /** A client's socket, and a fake QEMU at the other end. */
  async function connected(): Promise<Socket> {
    const listener = await listenForQmp(join(folder, 'qmp'))
    qemu = new FakeQemu(connect(join(folder, 'qmp')))
    return listener.connection
  }

  async function opened(options: { commandTimeoutMs?: number; lineLimitBytes?: number } = {}): Promise<QmpClient> {
    const socket = await connected()
    qemu.greet()
    qmp = await QmpClient.open(socket, { clock, ...options })
    return qmp
  }

  it('waits for the greeting before it negotiates', async () => {
    const opening = QmpClient.open(await connected(), { clock })
    await new Promise(resolve => setImmediate(resolve))
    expect(qemu.commands).toEqual([])
    qemu.greet()
    qmp = await opening
    expect(qemu.commands.map(command => command.execute)).toEqual(['qmp_capabilities'])
  })

  it('gives up on a QEMU that never greets', async () => {
    const opening = QmpClient.open(await connected(), { clock, commandTimeoutMs: 30 })
    await expect(opening).rejects.toMatchObject({ code: 'QMP_TIMEOUT' })
  })

  it('matches replies to commands by id, in whatever order they come', async () => {
    const client = await opened()
    qemu.answer = ({ execute, id }) =>
      execute === 'first'
        ? []
        : [
            { return: 'two', id },
            { return: 'one', id: id - 1 }
          ]
    expect(await Promise.all([client.command('first'), client.command('second', { a: 1 })])).toEqual(['one', 'two'])
    expect(qemu.commands.at(-1)?.arguments).toEqual({ a: 1 })
  })

  it('rejects what QEMU refuses, and goes on', async () => {
    const client = await opened()
    qemu.answer = ({ id }) => [{ error: { class: 'GenericError', desc: 'not now' }, id }]
    const refused = {
      code: 'QMP_REFUSED',
      message: 'QEMU refused migrate: not now',
      details: { errorClass: 'GenericError' }
    }
    await expect(client.command('migrate')).rejects.toMatchObject(refused)
    qemu.answer = ({ id }) => [{ return: 1, id }]
    expect(await client.command('x')).toBe(1)
  })

  it('loses no event that comes before the reply of the command that caused it', async () => {
    const client = await opened()
    qemu.answer = ({ id }) => [
      { event: 'RESUME', data: {} },
      { return: {}, id }
    ]
    const resumed = client.waitEvent('RESUME')
    await client.command('cont')
    expect(await resumed).toMatchObject({ name: 'RESUME' })
  })

  it('waits for the event that matches, and lets the others pass', async () => {
    const client = await opened()
    const completed = client.waitEvent('MIGRATION', event => event.data.status === 'completed')
    qemu.say({ event: 'STOP' })
    for (const status of ['setup', 'active', 'completed']) qemu.say({ event: 'MIGRATION', data: { status } })
    expect((await completed).data).toEqual({ status: 'completed' })
  })

  it('looks at no event any more for who has given up waiting', async () => {
    const client = await opened()
    let looked = 0
    const over = new AbortController()
    const given = client.waitEvent('STOP', () => ++looked < 0, over.signal)
    qemu.say({ event: 'STOP' })
    await expect.poll(() => looked).toBe(1)
    over.abort(new Error('refused'))
    await expect(given).rejects.toThrow('refused')
    const seen = client.waitEvent('STOP')
    qemu.say({ event: 'STOP' })
    await seen
    expect(looked).toBe(1)
  })

  it('ends all that waits when QEMU goes, and answers later calls at once', async () => {
    const client = await opened()
    qemu.answer = () => []
    const waiting = [client.command('stop'), client.waitEvent('RESUME')]
    qemu.socket.end()
    for (const wait of [...waiting, client.command('cont'), client.waitEvent('STOP')]) {
      await expect(wait).rejects.toMatchObject({ code: 'QMP_CLOSED' })
    }
    expect((await client.closed).code).toBe('QMP_CLOSED')
  })

  it('hangs up on a QEMU that does not answer', async () => {
    const client = await opened({ commandTimeoutMs: 30 })
    qemu.answer = () => []
    await expect(client.command('stop')).rejects.toMatchObject({ code: 'QMP_TIMEOUT' })
    expect((await client.closed).message).toMatch('stop')
  })

  it.each([
    ['bytes that are not UTF-8', Buffer.from([0xff, 0xfe, 10]), 'QMP_MALFORMED'],
    ['a line that is not JSON', Buffer.from('hello\n'), 'QMP_MALFORMED'],
    ['a reply to nothing', Buffer.from('{"return":{},"id":99}\n'), 'QMP_MALFORMED'],
    ['a reply without id', Buffer.from('{"return":{}}\n'), 'QMP_MALFORMED'],
    ['a line without end', Buffer.alloc(5_000, 'x'), 'QMP_LINE_TOO_LONG']
  ])('hangs up on %s', async (_, bytes, code) => {
    const client = await opened({ lineLimitBytes: 4_096 })
    qemu.answer = () => []
    const waiting = client.command('stop')
    qemu.socket.write(bytes)
    await expect(waiting).rejects.toMatchObject({ code })
  })

  it('survives any bytes: it goes on or hangs up with a code, and never throws elsewhere', async () => {
    const line = fc.oneof(
      fc.uint8Array({ maxLength: 80 }),
      fc.json().map(text => Buffer.from(`${text}\n`))
    )
    await fc.assert(
      fc.asyncProperty(fc.array(line, { maxLength: 8 }), async lines => {
        const client = await opened({ lineLimitBytes: 256 })
        qemu.answer = () => []
        const waiting = client.command('stop')
        for (const bytes of lines) qemu.socket.write(bytes)
        qemu.socket.end()
        await expect(waiting).rejects.toMatchObject({ code: expect.stringMatching(/^QMP_/) })
      }),
      { numRuns: 60 }
    )
  })

  describe('with QEMU 9 and later, which leaves a stopped VM stopped', () => {
    const snapshot = (client: QmpClient) =>
      backgroundSnapshot(client, { path: 'somewhere', resumesByItself: false, clock })

    it('continues the VM once the first page has been sent, and not before', async () => {
      const client = await opened()
      let polls = 0
      qemu.answer = ({ execute, id }) => {
        if (execute === 'query-migrate') return [{ return: { ram: { normal: ++polls > 3 ? 1 : 0, duplicate: 0 } }, id }]
        if (execute === 'cont') return [{ event: 'RESUME' }, { return: {}, id }]
        if (execute !== 'migrate') return [{ return: {}, id }]
        return [
          { return: {}, id },
          { event: 'MIGRATION', data: { status: 'active' } }
        ]
      }
      const { streamed } = await snapshot(client)
      const names = qemu.commands.map(command => command.execute)
      expect(names).toEqual(['qmp_capabilities', 'migrate', ...Array(4).fill('query-migrate'), 'cont'])
      qemu.say({ event: 'MIGRATION', data: { status: 'completed' } })
      await streamed
    })

    it('continues the VM also where the whole stream was sent before anyone looked', async () => {
      const client = await opened()
      qemu.answer = ({ execute, id }) => {
        if (execute === 'cont') return [{ return: {}, id }, { event: 'RESUME' }]
        if (execute !== 'migrate') return [{ return: {}, id }]
        return [
          { event: 'MIGRATION', data: { status: 'completed' } },
          { return: {}, id }
        ]
      }
      await (await snapshot(client)).streamed
      expect(qemu.commands.map(command => command.execute)).toContain('cont')
    })

    it('tells a snapshot that never began, after which the VM runs, from one that broke off', async () => {
      const client = await opened()
      let failing = ['failed']
      qemu.answer = ({ execute, id }) => {
        if (execute === 'query-status') return [{ return: { running: false }, id }]
        const events = failing.map(status => ({ event: 'MIGRATION', data: { status } }))
        return execute === 'migrate' ? [{ return: {}, id }, ...events] : [{ return: {}, id }]
      }
      await expect(snapshot(client)).rejects.toMatchObject({ code: 'HYPERVISOR_CUT' })
      expect(qemu.commands.at(-1)?.execute).toBe('cont')
      failing = ['active', 'failed']
      await expect(snapshot(client)).rejects.toMatchObject({ code: 'HYPERVISOR_STREAM' })
    })
  })

  describe('stopping a VM to save it', () => {
    /** A QEMU whose states are these, one for each time it is asked, and the last one from then on. */
    const states = (...names: string[]) => {
      qemu.answer = ({ execute, id }) => {
        if (execute !== 'query-status') return [{ return: {}, id }]
        return [{ return: { running: false, status: names.length > 1 ? names.shift() : names[0] }, id }]
      }
    }
    const said = () => qemu.commands.map(command => command.execute).slice(1)

    it('lets a VM go on that was reset as it stood still, and stops it again', async () => {
      const client = await opened()
      states('prelaunch', 'paused')
      await standStill(client, clock)
      expect(said()).toEqual(['stop', 'query-status', 'cont', 'stop', 'query-status'])
    })

    it('gives up on a guest that resets for ever, which runs on', async () => {
      const client = await opened()
      states('prelaunch')
      await expect(standStill(client, clock)).rejects.toMatchObject({ code: 'HYPERVISOR_CUT' })
      expect(said().at(-1)).toBe('cont')
    })

    it('tells a VM that has stopped by itself for good, and does not continue it', async () => {
      const client = await opened()
      states('internal-error')
      await expect(standStill(client, clock)).rejects.toMatchObject({ code: 'HYPERVISOR_STOPPED' })
      expect(said()).not.toContain('cont')
      await expect(stopToSendDevices(client, 'somewhere', clock)).rejects.toMatchObject({ code: 'HYPERVISOR_STOPPED' })
      expect(said()).not.toContain('migrate')
    })
  })

  it('says what a host needs where QEMU refuses background snapshots', async () => {
    const client = await opened()
    qemu.answer = ({ id }) => [{ error: { class: 'GenericError', desc: 'Background-snapshot is not supported' }, id }]
    await expect(prepare(client, 'snapshot')).rejects.toMatchObject({
      code: 'HYPERVISOR_SNAPSHOT',
      message: expect.stringMatching('userfaultfd')
    })
  })

  /** A QEMU whose VM has not begun. */
  async function realQemu(): Promise<{ real: QemuProcess; client: QmpClient }> {
    const path = join(folder, 'qmp')
    const listener = await listenForQmp(path)
    const args = [...commonArguments('tcg', 'diapause:test:qmp'), '-S', '-m', '16', '-qmp', `unix:${path},server=off`]
    const real = await spawnQemu('qemu-system-x86_64', args)
    qmp = await QmpClient.open(await listener.connection, { clock })
    return { real, client: qmp }
  }

  it('saves a real VM that was reset just as it was stopped, and it goes on', async () => {
    const { real, client } = await realQemu()
    const snapshot = join(folder, 'snapshot')
    const receiver = await receive(snapshot)
    try {
      await prepare(client, 'snapshot')
      await client.command('cont')
      await client.command('stop')
      await client.command('system_reset')
      await client.command('query-status')
      expect(await client.command('query-status')).toMatchObject({ status: 'prelaunch' })
      await standStill(client, clock)
      const [major] = (await installedQemu({ qemu: 'qemu-system-x86_64' })).number
      const resumesByItself = major < 9
      await (await backgroundSnapshot(client, { path: snapshot, resumesByItself, clock })).streamed
      expect((await receiver.bytes).length).toBeGreaterThan(0)
      expect(await client.command('query-status')).toMatchObject({ running: true })
    } finally {
      real.kill()
      await receiver.close()
    }
  })

  it('speaks with a real QEMU', async () => {
    const { real, client: qmp } = await realQemu()
    try {
      const resumed = qmp.waitEvent('RESUME')
      expect(await qmp.command('query-status')).toMatchObject({ running: false })
      await qmp.command('cont')
      await resumed
      await expect(qmp.command('no-such-command')).rejects.toMatchObject({ code: 'QMP_REFUSED' })
      await qmp.command('quit')
      expect((await qmp.closed).code).toBe('QMP_CLOSED')
      expect((await real.exited).status).toBe(0)
    } finally {
      real.kill()
    }
  })
})
