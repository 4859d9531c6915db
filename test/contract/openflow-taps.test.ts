/** VMs' TAP devices on a bridge of Open vSwitch. The VM's end of one is a QEMU without a machine. */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { relayArguments } from '../../node/hypervisor/uplink-relay.ts'
import { run } from '../../node/switch/openflow/commands.ts'
import { toPacket } from '../../node/switch/ethernet.ts'
import { PacketCutter } from '../../node/switch/packets.ts'
import type { Tap, TapOptions } from '../../node/switch/openflow/taps.ts'
import { waitUntil } from '../demo/processes.ts'
import { arpRequest } from './hypervisor-support.ts'
import { GuestsOnBridges } from './openflow-support.ts'
import type { TapsCall } from './openflow-taps-child.ts'

const LIMIT_MS = 15_000
/** Long enough for an answer to come that must not. */
const NOT_MS = 200
/** Of the host, where a VM must not reach it. */
const HOST_ADDRESS = '10.99.0.1'
const OWNER = { group: 'bank', vm: 'a', nics: 2 }

describe('TAP devices on a bridge of Open vSwitch', () => {
  let world: GuestsOnBridges
  let maker: ChildProcess
  const servers: Server[] = []
  let plugs = 0

  beforeAll(async () => {
    world = await GuestsOnBridges.start()
    maker = start()
    await world.ovs.tell('ovs-ofctl', '-OOpenFlow13', 'add-flow', `unix:${world.address(1)}`, 'actions=NORMAL')
    // Behind t1 the host hears as well, on a device that is not ours; behind p1 a namespace says now and then by IPv6 that
    // it has left a group.
    await world.ovs.tell('ovs-vsctl', `--db=${world.ovs.database}`, 'del-port', 't1', '--', 'del-port', 'p1')
    // Nor are these ours, which greet their IPv6 neighbours when they have been up for some seconds.
    const quiet = 'for all in br1 p2 p3; do echo 1 > /proc/sys/net/ipv6/conf/$all/disable_ipv6; done'
    await world.ovs.tell('sh', '-ec', quiet)
    await world.ovs.tell('ip', 'addr', 'add', `${HOST_ADDRESS}/32`, 'dev', 'lo')
    await world.ovs.tell('ip', 'link', 'set', 'lo', 'up')
  })

  afterAll(async () => {
    for (const server of servers) server.close()
    await world?.stop()
  })

  const start = () => world.ovs.spawn(process.execPath, join(import.meta.dirname, 'openflow-taps-child.ts'))

  async function call(...words: TapsCall): Promise<unknown> {
    maker.stdin?.write(`${JSON.stringify(words)}\n`)
    const lines = createInterface({ input: maker.stdout as NonNullable<typeof maker.stdout> })
    const [line] = (await once(lines, 'line')) as [string]
    lines.close()
    const { value, error } = JSON.parse(line) as { value?: unknown; error?: Error & { code: string } }
    if (error !== undefined) throw Object.assign(new Error(error.message), error)
    return value
  }

  const open = (changes: Partial<TapOptions> = {}) =>
    call('open', { peer: 'p1', bridge: 'br1', database: world.ovs.database, mtuBytes: 1400, ...changes })
  const make = async () => (await call('make', OWNER)) as Tap[]
  const remove = (taps: readonly Tap[]) =>
    call(
      'remove',
      taps.map(({ device }) => device)
    )
  const devices = async () =>
    (await world.ovs.tell('ip', '-o', 'link', 'show', 'type', 'tun')).match(/\bdp\w+(?=:)/g) ?? []
  const ports = async () =>
    (await world.ovs.tell('ovs-vsctl', `--db=${world.ovs.database}`, 'list-ports', 'br1')).match(/\bdp\w+/g) ?? []

  /** The VM's end: what it hears, and how it speaks. */
  async function plugInto({ device }: Tap) {
    const socketPath = join(world.dir, `vm${++plugs}`)
    const heard: string[] = []
    const { promise, resolve } = Promise.withResolvers<Socket>()
    const server = createServer(resolve).listen(socketPath)
    servers.push(server)
    const relay = world.ovs.spawn(
      'qemu-system-x86_64',
      ...relayArguments({ peer: 'p1', kind: `tap:${device}`, socketPath })
    )
    const socket = await promise
    const cutter = new PacketCutter()
    socket.on('data', chunk =>
      cutter.push(chunk, packet => heard.push(Buffer.from(packet.subarray(4)).toString('hex')))
    )
    return { heard, send: (frame: Uint8Array) => void socket.write(toPacket(frame)), relay }
  }

  const plugIn = (taps: readonly Tap[]) => Promise.all([plugInto(taps[0] as Tap), plugInto(taps[1] as Tap)])

  /** Before its device goes: without one it turns in circles. */
  async function end({ relay }: { readonly relay: ChildProcess }): Promise<void> {
    relay.kill('SIGKILL')
    await once(relay, 'exit')
  }

  it('carry frames from VM to VM, have the MTU and number that was said, and tell people whose they are', async () => {
    await open()
    const taps = await make()
    const [one, other] = await plugIn(taps)
    const frame = arpRequest('52:54:00:00:00:01', '10.99.0.7')
    expect(
      await waitUntil(() => {
        one.send(frame) // the first ones, where the device has only just got its other end
        return other.heard.includes(frame.toString('hex'))
      }, LIMIT_MS)
    ).toBe(true)
    for (const { device, interfaceIndex } of taps) {
      expect(await world.ovs.tell('ip', '-o', 'link', 'show', device)).toMatch(
        new RegExp(`^${interfaceIndex}: ${device}: .* mtu 1400 `)
      )
    }
    const owner = ['get', 'Interface', taps[1]?.device ?? '', 'external_ids:diapause']
    expect(await world.ovs.tell('ovs-vsctl', `--db=${world.ovs.database}`, ...owner)).toBe('"bank/a"\n')
    await Promise.all([one, other].map(end))
    await remove(taps)
  })

  it('hide their host, which hears all that a VM says, from it', async () => {
    await open()
    const taps = await make()
    const [vm, other] = await plugIn(taps)
    const [asks, marker] = [arpRequest('52:54:00:00:00:01', HOST_ADDRESS), arpRequest('52:54:00:00:00:02', '10.99.0.7')]
    expect(
      await waitUntil(() => {
        vm.send(asks)
        other.send(marker)
        return other.heard.includes(asks.toString('hex')) && vm.heard.includes(marker.toString('hex'))
      }, LIMIT_MS)
    ).toBe(true)
    await waitUntil(() => false, NOT_MS)
    for (const [{ heard }, only] of [
      [vm, marker],
      [other, asks]
    ] as const)
      expect([...new Set(heard)]).toEqual([only.toString('hex')])
    await Promise.all([vm, other].map(end))
    await remove(taps)
  })

  it('are gone without a trace when they are removed, once or twice, and never have a name again', async () => {
    await open()
    const taps = await make()
    expect((await devices()).toSorted()).toEqual(taps.map(({ device }) => device).toSorted())
    await remove(taps)
    await remove(taps)
    const again = await make()
    expect(again.some(({ device }) => taps.some(tap => tap.device === device))).toBe(false)
    await remove(again)
    expect([await devices(), await ports()]).toEqual([[], []])
  })

  it('of an earlier run of a peer are removed at its start, also where only the port was left, and no others', async () => {
    await open()
    const [first, second] = (await make()) as [Tap, Tap]
    await open({ peer: 'p2' })
    const others = (await make()).map(({ device }) => device).toSorted()
    maker.kill('SIGKILL')
    await once(maker, 'exit')
    maker = start()
    await world.ovs.tell('ip', 'link', 'del', first.device) // as when the host has been started anew
    expect(await ports()).toContain(first.device)
    expect(await devices()).toContain(second.device)
    await open()
    expect([(await devices()).toSorted(), (await ports()).toSorted()]).toEqual([others, others])
    await open({ peer: 'p2' })
    expect([await devices(), await ports()]).toEqual([[], []])
  })

  it('say what to do where they cannot be made, and leave nothing', async () => {
    await open({ bridge: 'br9' })
    await expect(make()).rejects.toMatchObject({ name: 'UsageError', code: 'OPENFLOW_BRIDGE' })
    expect(await devices()).toEqual([])
    await open({ mtuBytes: 7 })
    await expect(make()).rejects.toMatchObject({ code: 'OPENFLOW_COMMAND', message: /mtu/ })
    expect(await devices()).toEqual([])
    const nowhere = open({ database: 'unix:/nowhere' })
    await expect(nowhere).rejects.toMatchObject({ name: 'UsageError', code: 'OPENFLOW_DATABASE' })
    const missing = run('ovs-vsctl-of-nobody', [])
    await expect(missing).rejects.toMatchObject({ name: 'UsageError', code: 'OPENFLOW_TOOL' })
  })
})
