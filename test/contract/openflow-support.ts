/**
 * Open vSwitch with its userspace datapath, and three hosts on two bridges of it:
 *
 *     a ── p1 ─ br1 ─ t1 ══ t2 ─ br2 ─ p2 ── b
 *                                    └ p3 ── c
 *
 * Open vSwitch is not installed: its Debian packages are downloaded and unpacked, as those of the test guest.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { UsageError } from '../../node/errors.ts'
import { macNumber } from '../../node/switch/ethernet.ts'
import { waitUntil } from '../demo/processes.ts'
import { type Host, Hosts } from '../hosts/hosts.ts'

const run = promisify(execFile)
const cache = join(import.meta.dirname, '../../.build/openvswitch')
const packages = ['openvswitch-switch', 'ethtool']
/** For Open vSwitch to start on a busy machine. */
const START_MS = 20_000

/**
 * Where the packages that this machine lacks are unpacked. Packages that are installed are used as they are. UsageError
 * OVS_PACKAGES where apt knows none.
 */
async function unpacked(): Promise<string> {
  const names = (await missing()) ?? (await updated())
  const dir = join(cache, names.join('+').slice(0, 200) || 'installed')
  if (existsSync(dir)) return dir
  await mkdir(cache, { recursive: true })
  const temporary = await mkdtemp(join(cache, 'unpacking-'))
  try {
    await mkdir(join(temporary, 'root'))
    if (names.length > 0) await run('apt-get', ['download', '-q', ...names], { cwd: temporary })
    for (const file of await readdir(temporary))
      if (file.endsWith('.deb')) await run('dpkg', ['-x', file, 'root'], { cwd: temporary })
    await rename(join(temporary, 'root'), dir).catch((error: unknown) => {
      if (!existsSync(dir)) throw error // else somebody else was faster
    })
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
  return dir
}

/** What would have to be installed; undefined where apt does not know. */
async function missing(): Promise<string[] | undefined> {
  const args = ['install', '-s', '-q', '--no-install-recommends', ...packages]
  const { stdout } = await run('apt-get', args, { env: { ...process.env, LC_ALL: 'C' } }).catch(() => ({ stdout: '' }))
  if (!stdout.includes('newly installed')) return undefined
  return [...stdout.matchAll(/^Inst (\S+)/gm)].map(match => match[1] as string).toSorted()
}

async function updated(): Promise<string[]> {
  const command = 'apt-get update'
  if (process.getuid?.() === 0) await run('apt-get', ['update', '-q'])
  const names = await missing()
  if (names !== undefined) return names
  throw new UsageError('OVS_PACKAGES', `apt has no package ${packages.join(' or ')}: run  sudo ${command}`)
}

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

export class OpenVSwitch {
  readonly #root: string
  readonly #hosts: Hosts
  #daemons: ChildProcess[] = []
  #switchd: ChildProcess | undefined
  guests: readonly Guest[] = []

  private constructor(root: string, hosts: Hosts) {
    this.#root = root
    this.#hosts = hosts
  }

  static async start(): Promise<OpenVSwitch> {
    const world = new OpenVSwitch(await unpacked(), await Hosts.make(3))
    try {
      await world.#start()
      return world
    } catch (error) {
      await world.stop()
      throw error
    }
  }

  /** OpenFlow address of a bridge. */
  address(bridge: 1 | 2): string {
    return join(this.#hosts.dir, `br${bridge}.mgmt`)
  }

  /** As `ovs-vsctl --db` says. */
  get database(): string {
    return `unix:${join(this.#hosts.dir, 'db.sock')}`
  }

  /** For sockets and the like; removed at the end. */
  get dir(): string {
    return this.#hosts.dir
  }

  get control(): string {
    return join(this.#hosts.dir, 'switch.ctl')
  }

  readonly packetQueues = (): Promise<string> => readFile(`/proc/${this.#switchd?.pid}/net/packet`, 'utf8')

  async stop(): Promise<void> {
    for (const child of this.#daemons) child.kill()
    await this.#hosts.remove()
  }

  /** A program where the bridges are, with Open vSwitch's own in its path; ended with them. */
  spawn(program: string, ...args: string[]): ChildProcess {
    const [command, ...rest] = [...this.#hosts.onSwitch, program, ...args]
    return spawn(command as string, rest, { env: this.#env, stdio: ['pipe', 'pipe', 'inherit'] })
  }

  /** The same, to its end: what it prints. */
  async tell(program: string, ...args: string[]): Promise<string> {
    return (await this.#tool(program, ...args)).stdout
  }

  /** Stops or continues the daemon that forwards. */
  signal(name: 'SIGSTOP' | 'SIGCONT'): void {
    this.#switchd?.kill(name)
  }

  /** Kills the daemon that forwards, with all its flow entries, and starts it again. */
  async restart(): Promise<void> {
    if (this.#switchd !== undefined) {
      const ended = once(this.#switchd, 'exit')
      this.#switchd.kill('SIGKILL')
      await ended
    }
    this.#startSwitch()
  }

  async #start(): Promise<void> {
    const { dir, all } = this.#hosts
    const schema = [this.#root, ''].map(root => `${root}/usr/share/openvswitch/vswitch.ovsschema`).find(existsSync)
    await this.#tool('ovsdb-tool', 'create', join(dir, 'conf.db'), schema ?? '')
    this.#daemon(
      'ovsdb-server',
      join(dir, 'conf.db'),
      `--remote=punix:${dir}/db.sock`,
      '--unixctl=none',
      '-vconsole:emer'
    )
    await appears(join(dir, 'db.sock'))
    this.#startSwitch()
    for (const host of all) await this.#hosts.cutOff(host) // from the kernel's bridge
    await this.#tool('ip', 'link', 'add', 't1', 'type', 'veth', 'peer', 'name', 't2')
    for (const name of ['t1', 't2']) await this.#tool('ip', 'link', 'set', name, 'up')
    const bridge = (name: string): string[] =>
      `-- add-br ${name} -- set bridge ${name} datapath_type=netdev protocols=OpenFlow13 fail_mode=secure`.split(' ')
    const port = (to: string, name: string): string[] => ['--', 'add-port', to, name]
    const first = [...bridge('br1'), ...port('br1', 'p1'), ...port('br1', 't1')]
    const second = [...bridge('br2'), ...port('br2', 'p2'), ...port('br2', 'p3'), ...port('br2', 't2')]
    const db = [`--db=unix:${dir}/db.sock`, '--no-wait', '--', 'init']
    await this.#tool('ovs-vsctl', ...db, ...first, ...second)
    for (const number of [1, 2] as const) await appears(this.address(number))
    this.guests = await Promise.all(all.map((host, index) => this.#guest('abc'[index] as string, host)))
    await this.#neighbours()
  }

  #startSwitch(): void {
    const options = ['--disable-system', `--unixctl=${this.control}`, '-vconsole:emer']
    this.#switchd = this.#daemon('ovs-vswitchd', `unix:${this.#hosts.dir}/db.sock`, ...options)
  }

  async #guest(name: string, host: Host): Promise<Guest> {
    const on = this.#hosts.on(host)
    // A packet socket gets frames before a network card would have put their checksums in.
    await this.#command([...on, 'ethtool', '-K', 'eth0', 'tx', 'off'])
    // IPv6 asks for routers now and then, by multicast, and frames are counted here. A kernel may have none.
    for (const quiet of ['link set eth0 addrgenmode none', '-6 addr flush dev eth0'])
      await this.#command([...on, 'ip', ...quiet.split(' ')]).catch(() => {})
    const own = (await this.#command([...on, 'ip', '-o', 'link', 'show', 'eth0'])).stdout
    const port = (await this.#tool('ip', '-o', 'link', 'show', host.port)).stdout
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
        if (!(await waitUntil(() => at() !== -1, START_MS))) throw new Error(`${name} never said ${start}`)
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
        if (other.host !== host) await this.#command([...this.#hosts.on(host), ...entry])
      }
    }
  }

  get #env(): NodeJS.ProcessEnv {
    const dir = this.#hosts.dir
    const folders = ['usr/sbin', 'usr/bin', 'sbin', 'bin', 'usr/lib/openvswitch-switch'].map(name =>
      join(this.#root, name)
    )
    const libraries = ['usr/lib', 'lib'].map(name => join(this.#root, name, 'x86_64-linux-gnu'))
    const own = { OVS_RUNDIR: dir, OVS_LOGDIR: dir, OVS_DBDIR: dir, OVS_SYSCONFDIR: dir }
    const path = [...folders, process.env.PATH, '/usr/sbin', '/sbin'].join(':')
    return { ...process.env, ...own, PATH: path, LD_LIBRARY_PATH: libraries.join(':') }
  }

  #tool(...args: string[]): Promise<{ stdout: string }> {
    return this.#command([...this.#hosts.onSwitch, ...args])
  }

  #command(words: readonly string[]): Promise<{ stdout: string }> {
    const [command = '', ...args] = words
    return run(command, args, { env: this.#env, timeout: START_MS })
  }

  #daemon(...args: string[]): ChildProcess {
    const [command = '', ...rest] = [...this.#hosts.onSwitch, ...args]
    const child = spawn(command, rest, { env: this.#env, stdio: ['ignore', 'inherit', 'inherit'] })
    this.#daemons.push(child)
    return child
  }
}

async function appears(path: string): Promise<void> {
  if (!(await waitUntil(() => existsSync(path), START_MS))) throw new Error(`${path} has not appeared`)
}
