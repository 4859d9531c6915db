/** One host of a rig, as faults see it, and its init: a peer that ended is started again, unless the host is down. */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { upgradeReport } from '../../node/edge/upgrade.ts'
import { messageOf } from '../../node/errors.ts'
import type { ClusterPeer } from '../demo/cluster.ts'
import { killAll, type ProcessFacts, signal, tree, waitUntil } from '../demo/processes.ts'
import type { Host, Hosts } from '../hosts/hosts.ts'
import { type Disk, type Heal, type Home, once, type Target } from './fault.ts'

/** So long after its end a peer is started again. Units of systemd wait 100 ms by default, ours 5 s; a guess between. */
const RESTART_MS = 1_000
/** After this what was killed and still runs hangs in the kernel. */
const GONE_MS = 10_000
/** Of a peer that is told to stop: `TimeoutStopSec` of our unit for systemd. */
const STOP_MS = 60_000

export class RigTarget implements Target {
  readonly name: string
  readonly dataDir: string
  readonly disk: Disk
  readonly scratchDir: string
  readonly host: Host
  readonly hosts: Hosts
  readonly peer: ClusterPeer
  /** As the step says that is done to it. */
  random: () => number = () => 0
  readonly #targets: readonly RigTarget[]
  readonly #start: (program: string | undefined) => void
  readonly #isUp: () => boolean
  readonly unwell: (what: string) => void
  /** So many faults keep it down. */
  #down = 0
  #isEnded = false
  #program: string | undefined
  #retired = false

  constructor(parts: {
    home: Home
    peer: ClusterPeer
    host: Host
    hosts: Hosts
    targets: readonly RigTarget[]
    start: (program: string | undefined) => void
    isUp: () => boolean
    unwell: (what: string) => void
  }) {
    this.name = parts.home.name
    this.dataDir = parts.home.dataDir
    this.disk = parts.home.disk
    this.scratchDir = parts.home.scratchDir
    this.host = parts.host
    this.hosts = parts.hosts
    this.peer = parts.peer
    this.#targets = parts.targets
    this.#start = parts.start
    this.#isUp = parts.isUp
    this.unwell = parts.unwell
  }

  get others(): readonly RigTarget[] {
    return this.#targets.filter(target => target !== this)
  }

  /** Its init has ended its peer, and has not started it since. */
  get isEnded(): boolean {
    return this.#isEnded
  }

  /** Its peer runs: one that was killed has ended before its parent hears of it. */
  get isUp(): boolean {
    return this.#isUp() && this.peerPid() !== undefined
  }

  peerPid(): number | undefined {
    const { configFile } = this.peer
    return this.hosts.running(this.host).find(({ command }) => command.includes(` up --config ${configFile}`))?.pid
  }

  qemuPids(): number[] {
    const isVm = ({ command }: ProcessFacts) => /qemu\S* .*guest=/.test(command) && !command.includes('.uplink')
    return this.hosts
      .running(this.host)
      .filter(isVm)
      .map(({ pid }) => pid)
  }

  /** The peer, what it has started, and what names its files: a helper of a fault on this host is none of these. */
  pids(): number[] {
    const all = this.hosts.running(this.host)
    const peer = this.peerPid()
    const own = peer === undefined ? [] : tree(peer, all)
    const folder = join(this.peer.configFile, '..')
    const named = all.filter(({ command }) => command.includes(`${folder}/`)).map(({ pid }) => pid)
    return [...new Set([...own, ...named])]
  }

  /** Name of the VM of each hypervisor that is here, whether it runs or not. */
  vms(): string[] {
    const names = this.hosts
      .running(this.host)
      .map(({ command }) => /qemu\S* .*guest=[^:]*:[^:]*:([^ ,]+)/.exec(command)?.[1])
    return names.flatMap(name => name ?? []).filter(name => !name.startsWith('.'))
  }

  async halt(): Promise<Heal> {
    this.#down++
    this.#isEnded = true
    for (const endMs = performance.now() + GONE_MS; ; ) {
      const left = this.pids()
      if (left.length === 0) break
      if (performance.now() > endMs) throw new Error(`${left.join(', ')} on ${this.host.name} survived kill -9`)
      killAll(left)
      await sleep(20)
    }
    return once(async () => {
      this.#down--
      this.#ensure()
    })
  }

  async restart(program: string | undefined): Promise<void> {
    this.#program = program
    const pid = this.peerPid()
    this.#down++
    this.#isEnded = true
    if (pid !== undefined) {
      signal(pid, 'SIGTERM')
      if (!(await waitUntil(() => this.peerPid() !== pid, STOP_MS)))
        throw new Error(`the peer of ${this.host.name} did not stop within ${STOP_MS / 1_000} s of SIGTERM`)
    }
    await (await this.halt())()
    this.#down--
    this.startSoon()
  }

  async waits(version: string): Promise<readonly string[]> {
    try {
      const overview = await this.peer.client.overview()
      const is = overview.members.find(({ self }) => self)?.report?.version
      const waits = upgradeReport(version, overview).waits
      return is === version ? waits : [...waits, `it is of version ${is}`]
    } catch (error) {
      return [messageOf(error)]
    }
  }

  /** As init does. */
  startSoon(): void {
    setTimeout(() => this.#ensure(), RESTART_MS)
  }

  /** It is not started again. */
  retire(): void {
    this.#retired = true
  }

  #ensure(): void {
    if (this.#down > 0 || this.#retired || this.#isUp()) return
    this.#isEnded = false
    this.#start(this.#program)
  }
}
