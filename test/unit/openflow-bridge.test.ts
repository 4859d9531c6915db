/** The connection of a bridge that breaks while it is made: real sockets, a pretended daemon, and what comes between them. */
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { OpenFlowBridge } from '../../node/switch/openflow/bridge.ts'
import { OpenFlowConnection } from '../../node/switch/openflow/connection.ts'
import { COOKIE, COOKIE_MASK } from '../../node/switch/openflow/plan.ts'
import { FrameSpace } from '../../node/switch/spill.ts'
import { decode } from '../../protocols/openflow/decode.ts'
import { MessageSplitter } from '../../protocols/openflow/splitter.ts'
import { clock, memoryLog, quietLog } from '../contract/real-clock.ts'
import { PretendedSwitch } from './openflow-switch.ts'

/** A message without a type that anybody knows. */
const NONSENSE = Uint8Array.from([4, 10, 0, 9, 0, 0, 0, 1, 0])
const GROUP = {
  id: 'bank',
  generation: 1,
  stations: [
    { vm: 'a', nic: 0, mac: 0x10, network: 1, local: true, port: 1 },
    { vm: 'b', nic: 0, mac: 0x11, network: 1, local: true, port: 2 }
  ]
}

describe('the connection of a bridge that breaks while it is made', () => {
  let dir: string
  let daemon: PretendedSwitch
  let relay: Server
  let bridge: OpenFlowBridge
  let log: ReturnType<typeof memoryLog>
  /** What is asked for the control socket: it is answered when the test says so. */
  let asked: PromiseWithResolvers<string>[]
  let isAskedLater: boolean
  let isNonsenseSent: boolean
  const sockets = new Set<Socket>()

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'openflow-'))
    ;[log, asked, isAskedLater, isNonsenseSent] = [memoryLog(), [], false, false]
    await startDaemon()
    relay = createServer(relayed)
    await new Promise<void>(resolve => relay.listen(join(dir, 'relay'), resolve))
    const space = new FrameSpace({ directory: undefined, memoryBytes: 1 << 20, diskBytes: 0, log: quietLog })
    const control = (): Promise<string> => {
      if (!isAskedLater) return Promise.resolve(join(dir, 'br.ctl'))
      const question = Promise.withResolvers<string>()
      asked.push(question)
      return question.promise
    }
    bridge = await OpenFlowBridge.open({
      address: join(dir, 'relay'),
      control,
      clock,
      log,
      keeper: () => space.keeper(),
      onMarker: () => {}
    })
    await bridge.setGroup(GROUP)
    await bridge.attach({ group: 'bank', vm: 'a', epoch: 0, interfaces: [] })
  })

  afterEach(async () => {
    bridge.close()
    for (const question of asked) question.resolve('')
    daemon.close()
    for (const socket of sockets) socket.destroy()
    await new Promise(resolve => relay.close(resolve))
    await rm(dir, { recursive: true })
  })

  /** One with empty tables. */
  async function startDaemon(): Promise<void> {
    daemon = new PretendedSwitch(join(dir, 'br'), () => {})
    await daemon.listen()
  }

  /** Nonsense comes in one piece with the entries, where it is asked for. */
  function relayed(front: Socket): void {
    const back = connect(join(dir, 'br'))
    const splitter = new MessageSplitter()
    for (const [socket, other] of [
      [front, back],
      [back, front]
    ] as const) {
      sockets.add(socket)
      socket.on('error', () => {}).on('close', () => other.destroy())
    }
    front.pipe(back)
    back.on('data', chunk => {
      for (const bytes of splitter.push(chunk)) {
        const isSpoilt = isNonsenseSent && decode(bytes).message.type === 'flowsReply'
        front.write(Buffer.concat(isSpoilt ? [bytes, NONSENSE] : [bytes]))
      }
    })
  }

  async function restartDaemon(): Promise<void> {
    daemon.close()
    await startDaemon()
  }

  /** How many entries the daemon has. */
  async function countEntries(): Promise<number> {
    const events = { packetIn: () => {}, writable: () => {}, closed: () => {} }
    const connection = await OpenFlowConnection.open(join(dir, 'br'), clock, events)
    const flows = await connection.flows(COOKIE, COOKIE_MASK)
    connection.close()
    return flows.length
  }

  it('is not taken for one, and the daemon that comes next gets all entries', async () => {
    const before = await countEntries()
    expect(before).toBeGreaterThan(0)
    isAskedLater = true
    await restartDaemon()
    await expect.poll(() => asked.length).toBe(1)
    await restartDaemon() // while the bridge asks for the control socket of the one before
    await expect.poll(() => [...sockets].every(socket => socket.destroyed)).toBe(true)
    asked[0]?.resolve(join(dir, 'br.ctl'))
    await expect.poll(() => asked.length).toBe(2)
    expect(bridge.connected).toBe(false)
    await expect(bridge.setGroup(GROUP)).rejects.toMatchObject({ code: 'OPENFLOW_DOWN' })
    isAskedLater = false
    asked[1]?.resolve(join(dir, 'br.ctl'))
    await expect.poll(() => bridge.connected).toBe(true)
    await expect.poll(countEntries).toBe(before)
  })

  it('is not taken for one where it ends with the very bytes that tell its entries', async () => {
    isNonsenseSent = true
    await restartDaemon()
    const told = (): boolean => log.lines.some(({ message }) => message.startsWith('the bridge is out of reach'))
    await expect.poll(told).toBe(true)
    expect(bridge.connected).toBe(false)
    expect(bridge.mayDeliver('bank')).toBe(false)
    isNonsenseSent = false
    await expect.poll(() => bridge.connected).toBe(true)
  })
})
