/**
 * Three hosts on two bridges of Open vSwitch:
 *
 *     a ── p1 ─ br1 ─ t1 ══ t2 ─ br2 ─ p2 ── b
 *                                    └ p3 ── c
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { macNumber } from '../../node/switch/ethernet.ts'
import { waitUntil } from '../demo/processes.ts'
import { type Host, Hosts } from '../hosts/hosts.ts'
import { OpenVSwitch } from '../hosts/openvswitch.ts'

/** For a guest to do what it was told, on a busy machine. */
const ANSWER_MS = 20_000

/** A host as the bridges see it. */
export interface Guest {
  readonly name: string
  readonly host: Host
  readonly mac: number
  /** The kernel's number of the bridge's port. */
  readonly interfaceIndex: number
  readonly process: ChildProcess
  /** All that it has heard, in order. */
  readonly heard: string[]
  tell(line: string): void
  /** Resolves with the first line that begins so, of those that were not asked for before. */
  says(start: string): Promise<string>
}

export class GuestsOnBridges {
  readonly #hosts: Hosts
  #ovs: OpenVSwitch | undefined
  guests: readonly Guest[] = []

  private constructor(hosts: Hosts) {
    this.#hosts = hosts
  }

  static async start(): Promise<GuestsOnBridges> {
    const world = new GuestsOnBridges(await Hosts.make(3))
    try {
      await world.#start()
      return world
    } catch (error) {
      await world.stop()
      throw error
    }
  }

  /** For sockets and the like; removed at the end. */
  get dir(): string {
    return this.#hosts.dir
  }

  get ovs(): OpenVSwitch {
    if (this.#ovs === undefined) throw new Error('Open vSwitch is not there yet')
    return this.#ovs
  }

  /** OpenFlow address of a bridge. */
  address(bridge: 1 | 2): string {
    return this.ovs.management(`br${bridge}`)
  }

  async stop(): Promise<void> {
    this.#ovs?.stop()
    await this.#hosts.remove()
  }

  async #start(): Promise<void> {
    const { all } = this.#hosts
    this.#ovs = await OpenVSwitch.start(join(this.#hosts.dir, 'ovs'), this.#hosts.onSwitch)
    for (const host of all) await this.#hosts.cutOff(host) // from the kernel's bridge
    const links = ['link add t1 type veth peer name t2', 'link set t1 up', 'link set t2 up']
    await this.#hosts.ip(this.#hosts.onSwitch, links)
    const bridge = (name: string): string[] =>
      `-- add-br ${name} -- set bridge ${name} datapath_type=netdev protocols=OpenFlow13 fail_mode=secure`.split(' ')
    const port = (to: string, name: string): string[] => ['--', 'add-port', to, name]
    const first = [...bridge('br1'), ...port('br1', 'p1'), ...port('br1', 't1')]
    const second = [...bridge('br2'), ...port('br2', 'p2'), ...port('br2', 'p3'), ...port('br2', 't2')]
    await this.ovs.tell('ovs-vsctl', `--db=${this.ovs.database}`, ...first, ...second)
    this.guests = await Promise.all(all.map((host, index) => this.#guest('abc'[index] as string, host)))
    await this.#neighbours()
  }

  async #guest(name: string, host: Host): Promise<Guest> {
    const on = this.#hosts.on(host)
    // A packet socket gets frames before a network card would have put their checksums in.
    await this.ovs.run([...on, 'ethtool', '-K', 'eth0', 'tx', 'off'])
    // IPv6 asks for routers now and then, by multicast, and frames are counted here. A kernel may have none.
    for (const quiet of ['link set eth0 addrgenmode none', '-6 addr flush dev eth0'])
      await this.ovs.run([...on, 'ip', ...quiet.split(' ')]).catch(() => {})
    const own = await this.ovs.run([...on, 'ip', '-o', 'link', 'show', 'eth0'])
    const port = await this.ovs.tell('ip', '-o', 'link', 'show', host.port)
    const [command, ...args] = [...on, process.execPath, join(import.meta.dirname, 'openflow-child.ts')]
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    const heard: string[] = []
    const told: string[] = []
    createInterface({ input: child.stdout }).on('line', line => {
      if (/^(sent|bulk|up)\b/.test(line)) told.push(line)
      else heard.push(line)
    })
    const guest: Guest = {
      name,
      host,
      mac: macNumber(/link\/ether (\S+)/.exec(own)?.[1] ?? ''),
      interfaceIndex: Number.parseInt(port, 10),
      process: child,
      heard,
      tell: line => void child.stdin.write(`${line}\n`),
      says: async start => {
        const at = () => told.findIndex(line => line.startsWith(start))
        if (!(await waitUntil(() => at() !== -1, ANSWER_MS))) throw new Error(`${name} never said ${start}`)
        return told.splice(at(), 1)[0] as string
      }
    }
    await guest.says('up')
    return guest
  }

  /** Everybody knows everybody: while frames are held no address is asked for in vain. */
  async #neighbours(): Promise<void> {
    for (const { host } of this.guests) {
      for (const other of this.guests) {
        const mac = other.mac.toString(16).padStart(12, '0').match(/../g)?.join(':') ?? ''
        const entry = ['ip', 'neigh', 'replace', other.host.address, 'lladdr', mac, 'nud', 'permanent', 'dev', 'eth0']
        if (other.host !== host) await this.ovs.run([...this.#hosts.on(host), ...entry])
      }
    }
  }
}
