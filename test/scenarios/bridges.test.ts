/**
 * The OpenFlow path, once: three hosts with Open vSwitch and a second network between their bridges, a bank whose frames
 * pass there, a daemon and a host that die. The bridges are made as the README tells operators to.
 * The tests are one story in order, on one cluster.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Host, Hosts } from '../hosts/hosts.ts'
import { naming } from '../demo/processes.ts'
import { OpenVSwitch } from '../hosts/openvswitch.ts'
import { Bank, calm } from './bank.ts'

/** Of 3 VMs with 64 accounts of 1,000 coins each. */
const SOUND = { money: 192_000, gaps: 0, broken: 0, faults: [] }
/** As the README names them: the bridge, and each host's interface on the network between bridges. */
const BRIDGE = 'vms'
const WAY = 'eth1'

/** What an operator types on each host, without `sudo`. */
async function commands(readme: string): Promise<string[][]> {
  const text = await readFile(join(import.meta.dirname, '../..', readme), 'utf8')
  return [...text.matchAll(/^ {4}sudo (.+)$/gm)].map(([, line]) => (line as string).split(/\s+/))
}

interface BridgedHost {
  readonly host: Host
  readonly ovs: OpenVSwitch
}

async function joinedHosts(hosts: Hosts): Promise<BridgedHost[]> {
  const joined = await Promise.all(
    hosts.all.map(async host => {
      const dir = join(hosts.dir, `ovs-${host.name}`)
      return { host, ovs: await OpenVSwitch.start(dir, hosts.on(host)) }
    })
  )
  await hosts.ip(hosts.onSwitch, ['link add ways mtu 1504 type bridge mcast_snooping 0', 'link set ways up'])
  for (const { host, ovs } of joined) {
    const end = `way-${host.name}`
    await hosts.ip(hosts.onSwitch, [
      `link add ${end} mtu 1504 type veth peer name ${WAY} netns ${ovs.pid}`,
      `link set ${end} master ways up`
    ])
    for (const [program = '', ...words] of await commands('README.md')) {
      const database = program === 'ovs-vsctl' ? [`--db=${ovs.database}`] : []
      await ovs.tell(program, ...database, ...words)
    }
  }
  return joined
}

/** Their processes, without trackers: one that waits for the next VM comes and goes by itself. */
const machinesAt = ({ runDir }: { readonly runDir: string }): number[] =>
  naming(`${runDir}/`)
    .filter(({ command }) => !command.includes('tracker serve'))
    .map(({ pid }) => pid)

describe('a bank behind the bridges of three hosts', () => {
  let hosts: Hosts
  let joined: readonly BridgedHost[] = []
  let bank: Bank
  let nonces: string[]
  let stopped = false
  const path = process.env.PATH

  const at = (peer: string): BridgedHost => joined[Number(peer.slice(1)) - 1] as BridgedHost

  beforeAll(async () => {
    hosts = await Hosts.make(3)
    joined = await joinedHosts(hosts)
    process.env.PATH = `${at('p1').ovs.programs}:${path}`
    const settings = ({ name }: { name: string }) => {
      const openFlow = { bridge: BRIDGE, towards: WAY, database: at(name).ovs.database }
      return { ...calm, switch: { openFlow } }
    }
    bank = await Bank.start({
      peers: 3,
      hosts,
      settings,
      vms: 3,
      memoryMiB: 96,
      openFlow: true,
      besides: 'shared/street'
    })
  }, 240_000)

  afterAll(async () => {
    process.env.PATH = path
    if (!stopped) await bank?.cluster.stop()
    for (const { ovs } of joined) ovs.stop()
    await hosts?.remove()
  })

  /** Frames and markers that came up to peers, and frames that they had of other NICs, in all. */
  const up = async () =>
    (await Promise.all(bank.cluster.alive.map(({ client }) => client.status()))).reduce(
      (sum, { frames }) => sum + frames.bridgeUp + frames.delivered,
      0
    )
  /** Frames that a host's bridge got from others. */
  async function arrived(peer: string): Promise<number> {
    const [link] = JSON.parse(await at(peer).ovs.tell('ip', '-s', '-j', 'link', 'show', 'dev', WAY)) as [
      { stats64: { rx: { packets: number } } }
    ]
    return link.stats64.rx.packets
  }
  const portsOf = async (peer: string) => {
    const { ovs } = at(peer)
    return (await ovs.tell('ovs-vsctl', `--db=${ovs.database}`, 'list-ports', BRIDGE)).trim().split('\n')
  }
  /** Those of VMs; Open vSwitch has its own. */
  const tapsOf = async (peer: string) =>
    (await at(peer).ovs.tell('ip', '-o', 'link', 'show', 'type', 'tun')).match(/^\d+: dp\w+/gm) ?? []

  /** Money moves in the bridges alone: while hundreds of frames pass there, none comes up. */
  async function passesByThePeers(): Promise<void> {
    await bank.until('all frames to pass by the peers', async () => {
      const [before, came] = [await up(), await arrived('p1')]
      await bank.working()
      return (await up()) === before && (await arrived('p1')) > came + 40 ? true : undefined
    })
  }

  it('is made by the same commands wherever they stand', async () => {
    expect((await commands('README.md')).length).toBe(3)
    expect(await commands('node/switch/openflow/README.md')).toEqual(await commands('README.md'))
  })

  it('works, and its frames pass by the peers', async () => {
    await passesByThePeers()
    for (const { runDir } of bank.cluster.peers) {
      const [machine] = naming(`${runDir}/`).filter(({ command }) => command.includes('-netdev'))
      expect(machine?.command.match(/-netdev\W(?:tap|stream),id=n\d/g)).toEqual([
        expect.stringContaining('tap,id=n0') as string,
        expect.stringContaining('stream,id=n1') as string // on a network that leads outside of the group
      ])
    }
    const audit = await bank.audit()
    expect(audit).toMatchObject(SOUND)
    nonces = audit.nonces
  })

  it('commits epochs whoever proposes them, and its frames pass by the peers again', async () => {
    const first = await bank.epoch(bank.peer('p1'))
    await bank.working()
    expect(await bank.epoch(bank.peer('p3'))).toBeGreaterThan(first)
    await passesByThePeers()
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
  })

  it('works on when Open vSwitch ends and is started again', async () => {
    await at('p2').ovs.restart()
    await bank.working()
    await passesByThePeers()
    const { generation } = await bank.record()
    await bank.epoch(bank.peer('p2'))
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
    expect(await bank.record()).toMatchObject({ generation })
  })

  it('goes on from the last epoch when a host dies: no coin, transfer or connection is lost', async () => {
    const committed = (await bank.record()).committed?.epoch
    await bank.working() // past the snapshot, so that there is something to roll back
    const decided = await bank.killAndWait(bank.peer('p3'))
    expect(decided).toMatchObject({ epoch: committed, lost: ['vm3'] })
    expect(Object.values(await bank.owners())).not.toContain('p3')
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
    await passesByThePeers()
    expect(await bank.epoch(bank.peer('p1'))).toBeGreaterThan(committed ?? 0)
  })

  it('finds its bridge without ports of VMs when it comes back', async () => {
    expect((await portsOf('p3')).length).toBe(2)
    bank.cluster.startPeer(bank.peer('p3'))
    await bank.cluster.allConnected(60_000)
    expect(await portsOf('p3')).toEqual([WAY])
    expect(await tapsOf('p3')).toEqual([])
    await bank.working()
  })

  it('lets nothing of VMs whose peer stands still reach their successors, and ends them when it goes on', async () => {
    const still = bank.peer('p1')
    const before = (await bank.at(still)).running
    expect((await tapsOf('p1')).length).toBe(before.length)
    await bank.epoch(still)
    const machines = machinesAt(still)
    expect(machines).not.toEqual([])
    const decided = await bank.stopAndWait(still)
    expect(decided.lost).toEqual(before)
    expect(machinesAt(still)).toEqual(machines) // behind the entries that they had
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
    bank.cluster.continuePeer(still)
    await bank.until('the VMs that were left behind to end', async () =>
      (await tapsOf('p1')).length === 0 ? true : undefined
    )
    await bank.cluster.allConnected(60_000)
    expect(await bank.at(still)).toMatchObject({ running: [] })
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
  })

  it('leaves no process, device or port behind when it is stopped', async () => {
    stopped = true
    expect(await bank.cluster.stop()).toEqual([])
    for (const { name } of bank.cluster.peers) {
      expect(await portsOf(name)).toEqual([WAY])
      expect(await tapsOf(name)).toEqual([])
    }
  })
})
