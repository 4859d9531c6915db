/**
 * Open vSwitch with its userspace datapath, one on a host. It is not installed: its Debian packages are downloaded and
 * unpacked, as those of the test guest.
 */
import { type ChildProcess, type ChildProcessByStdio, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { promisify } from 'node:util'
import { UsageError } from '../../node/errors.ts'
import { controlSocket } from '../../node/switch/openflow/control.ts'
import { waitUntil } from '../demo/processes.ts'

const run = promisify(execFile)
const cache = join(import.meta.dirname, '../../.build/openvswitch')
const packages = ['openvswitch-switch', 'ethtool']
/** For Open vSwitch to start on a busy machine. */
const START_MS = 20_000

export class OpenVSwitch {
  readonly #root: string
  readonly #dir: string
  readonly #on: readonly string[]
  #daemons: ChildProcess[] = []
  #switchd: ChildProcess | undefined

  private constructor(root: string, dir: string, on: readonly string[]) {
    this.#root = root
    this.#dir = dir
    this.#on = on
  }

  /** `dir`: for its sockets, database and programs; made here. `on`: the words before a command that is to run on the host. */
  static async start(dir: string, on: readonly string[]): Promise<OpenVSwitch> {
    const ovs = new OpenVSwitch(await unpacked(), dir, on)
    try {
      await ovs.#start()
      return ovs
    } catch (error) {
      ovs.stop()
      throw error
    }
  }

  /** As `ovs-vsctl --db` says. */
  get database(): string {
    return `unix:${join(this.#dir, 'db.sock')}`
  }

  /** Of the daemon that forwards now: another one after each start, as everywhere. */
  readonly control = (): Promise<string> => controlSocket(this.#dir)

  /** OpenFlow address of a bridge. */
  management(bridge: string): string {
    return join(this.#dir, `${bridge}.mgmt`)
  }

  /** A folder with Open vSwitch's programs, for the path of those that run on the host. */
  get programs(): string {
    return join(this.#dir, 'bin')
  }

  /** Of the daemon that forwards, which is in the host's network namespace. */
  get pid(): number {
    return this.#switchd?.pid ?? 0
  }

  readonly packetQueues = (): Promise<string> => readFile(`/proc/${this.pid}/net/packet`, 'utf8')

  stop(): void {
    for (const child of this.#daemons) child.kill()
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

  /** What the program prints that runs on the host, with what is unpacked in its path. */
  tell(...words: string[]): Promise<string> {
    return this.run([...this.#on, ...words])
  }

  /** The same, for whom `words` begin with where it is to run. */
  async run([command = '', ...args]: readonly string[]): Promise<string> {
    return (await run(command, args, { env: this.#env, timeout: START_MS })).stdout
  }

  /** A program on the host that goes on. */
  spawn(...words: string[]): ChildProcessByStdio<Writable, Readable, null> {
    const [command = '', ...args] = [...this.#on, ...words]
    return spawn(command, args, { env: this.#env, stdio: ['pipe', 'pipe', 'inherit'] })
  }

  async #start(): Promise<void> {
    await mkdir(this.programs, { recursive: true })
    await this.#wrap('ovs-vsctl')
    const schema = [this.#root, ''].map(root => `${root}/usr/share/openvswitch/vswitch.ovsschema`).find(existsSync)
    const database = join(this.#dir, 'conf.db')
    await this.tell('ovsdb-tool', 'create', database, schema ?? '')
    this.#daemon('ovsdb-server', database, `--remote=p${this.database}`, '--unixctl=none', '-vconsole:emer')
    await appears(join(this.#dir, 'db.sock'))
    await this.tell('ovs-vsctl', `--db=${this.database}`, '--no-wait', 'init')
    this.#startSwitch()
    await appears(join(this.#dir, 'ovs-vswitchd.pid'))
    await appears(await this.control())
  }

  #startSwitch(): void {
    this.#switchd = this.#daemon('ovs-vswitchd', this.database, '--disable-system', '--pidfile', '-vconsole:emer')
  }

  /** A program that finds its libraries where they are unpacked, and nobody else does. */
  async #wrap(program: string): Promise<void> {
    const { PATH, LD_LIBRARY_PATH } = this.#env
    const text = `#!/bin/sh\nPATH='${PATH}' LD_LIBRARY_PATH='${LD_LIBRARY_PATH}' exec ${program} "$@"\n`
    await writeFile(join(this.programs, program), text, { mode: 0o755 })
  }

  get #env(): NodeJS.ProcessEnv {
    const dir = this.#dir
    const folders = ['usr/sbin', 'usr/bin', 'sbin', 'bin', 'usr/lib/openvswitch-switch'].map(name =>
      join(this.#root, name)
    )
    const libraries = ['usr/lib', 'lib'].map(name => join(this.#root, name, 'x86_64-linux-gnu'))
    const own = { OVS_RUNDIR: dir, OVS_LOGDIR: dir, OVS_DBDIR: dir, OVS_SYSCONFDIR: dir }
    const path = [...folders, process.env.PATH, '/usr/sbin', '/sbin'].join(':')
    return { ...process.env, ...own, PATH: path, LD_LIBRARY_PATH: libraries.join(':') }
  }

  #daemon(...words: string[]): ChildProcess {
    const [command = '', ...args] = [...this.#on, ...words]
    const child = spawn(command, args, { env: this.#env, stdio: ['ignore', 'inherit', 'inherit'] })
    this.#daemons.push(child)
    return child
  }
}

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

async function appears(path: string): Promise<void> {
  if (!(await waitUntil(() => existsSync(path), START_MS))) throw new Error(`${path} has not appeared`)
}
