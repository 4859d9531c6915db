/**
 * A Debian with a real systemd as its first process, on this one's files, for the time of a test: namespaces of its own, and
 * nothing that it writes reaches this machine (`boot.sh` says how). It ends with this process, whatever ends that; what stays
 * behind then, a folder and an empty control group, goes with the next start.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, openSync, readFileSync } from 'node:fs'
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { DiapauseError, messageOf, UsageError } from '../../node/errors.ts'
import { until } from '../scenarios/member.ts'

const execute = promisify(execFile)

const SYSTEMD = '/lib/systemd/systemd'
const FOLDER = 'diapause-systemd-'
const ENVIRONMENT = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root', LC_ALL: 'C' }

/** What the test runs of, by file, and Debian's package of it. */
const needed: Readonly<Record<string, string>> = {
  [SYSTEMD]: 'systemd',
  '/usr/bin/systemd-analyze': 'systemd',
  '/usr/sbin/useradd': 'passwd',
  '/usr/bin/nsenter': 'util-linux',
  '/sbin/ip': 'iproute2',
  '/usr/bin/qemu-system-x86_64': 'qemu-system-x86',
  '/usr/bin/cc': 'gcc',
  '/usr/include/stdlib.h': 'libc6-dev',
  '/usr/bin/g++': 'g++', // this and the next two: native npm packages are compiled
  '/usr/bin/make': 'make',
  '/usr/bin/python3': 'python3'
}

export class System {
  /** On this machine; what the second system has as /var/lib/diapause. */
  readonly dataDir: string
  readonly #folder: string
  readonly #holder: ChildProcess
  readonly #firstPid: number

  private constructor(folder: string, holder: ChildProcess, firstPid: number) {
    this.dataDir = join(folder, 'data')
    this.#folder = folder
    this.#holder = holder
    this.#firstPid = firstPid
  }

  /** Booted. UsageError SYSTEMD_TOOLS, SYSTEMD_ROOT with what to do; SYSTEMD_BOOT with what was said last. */
  static async boot(): Promise<System> {
    await needPackages()
    await removeDead()
    const folder = await mkdtemp(join(tmpdir(), `${FOLDER}${process.pid}-`))
    // A peer of a user of its own reaches its data.
    await chmod(folder, 0o755)
    const holder = hold(folder)
    try {
      const system = new System(folder, holder, await firstOf(folder, holder))
      await until('systemd to have booted', () => system.#booted())
      return system
    } catch (error) {
      await end(holder, folder)
      throw new DiapauseError('SYSTEMD_BOOT', `systemd does not boot here: ${messageOf(error)}\n${logOf(folder)}`, {
        cause: error
      })
    }
  }

  /** What a command in it prints, as root types it there. */
  run(...words: readonly string[]): Promise<string> {
    return this.#run(['--net'], words)
  }

  /** The same, with the network of this machine, for what is to be downloaded. */
  runOnline(env: Readonly<Record<string, string>>, ...words: readonly string[]): Promise<string> {
    return this.#run([], ['env', ...Object.entries(env).map(([name, value]) => `${name}=${value}`), ...words])
  }

  /** Of this machine: a path in it. */
  path(inside: string): string {
    return join('/proc', `${this.#firstPid}`, 'root', inside)
  }

  /** It, all that runs in it, and what it left here. */
  async end(): Promise<void> {
    await end(this.#holder, this.#folder)
  }

  /** Conditions that a container does not meet leave services out; none may fail. */
  async #booted(): Promise<boolean> {
    const state = await this.run('systemctl', 'is-system-running').catch(messageOf)
    return /^running$/m.test(state)
  }

  async #run(networks: readonly string[], words: readonly string[]): Promise<string> {
    const spaces = ['--mount', '--uts', '--ipc', '--pid', '--cgroup', ...networks, '--root', '--wdns=/']
    const args = ['--target', `${this.#firstPid}`, ...spaces, ...words]
    try {
      return (await execute('nsenter', args, { env: ENVIRONMENT, maxBuffer: 1 << 26 })).stdout
    } catch (cause) {
      const { stdout = '', stderr = '' } = cause as { stdout?: string; stderr?: string }
      const said = `${stdout}\n${stderr}`.trim()
      throw new DiapauseError('SYSTEMD_COMMAND', `failed: ${words.join(' ')}\n${said || messageOf(cause)}`, { cause })
    }
  }
}

/** The process that systemd dies with, which dies with us. */
function hold(folder: string): ChildProcess {
  const log = openSync(join(folder, 'log'), 'a')
  const script = [join(import.meta.dirname, 'boot.sh'), folder, groupOf(folder), process.execPath]
  const words = ['--pdeathsig', 'KILL', 'unshare', '--mount', '--propagation', 'private', 'sh', ...script]
  return spawn('setpriv', words, { stdio: ['ignore', log, log] })
}

/** The pid that the first process of it has here. */
async function firstOf(folder: string, { pid, exitCode }: ChildProcess): Promise<number> {
  let first: number | undefined
  await until('its first process', async () => {
    if (exitCode !== null || pid === undefined || !existsSync(`/proc/${pid}`)) throw new Error(logOf(folder))
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim()
    const command = children === '' ? '' : readFileSync(`/proc/${children}/cmdline`, 'latin1')
    if (command.startsWith(SYSTEMD)) first = Number(children)
    return first !== undefined
  })
  return first as number
}

async function end(holder: ChildProcess, folder: string): Promise<void> {
  if (holder.exitCode === null && holder.signalCode === null) {
    const ended = once(holder, 'exit')
    holder.kill('SIGKILL')
    await ended
  }
  await removeGroups(groupOf(folder))
  await rm(folder, { recursive: true, force: true, maxRetries: 10 })
}

/** Of this machine's tree of control groups. */
const groupOf = (folder: string): string => folder.slice(folder.indexOf(FOLDER))

/** Processes of it may be about to end; a group of one of them goes a moment later. */
async function removeGroups(name: string): Promise<void> {
  const script = `
    mount -t cgroup2 cgroup2 /mnt && cd /mnt || exit 1
    for tries in $(seq 100); do
      [ -d "$0" ] || exit 0
      find "$0" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
    done`
  await execute('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script, name])
}

/** What is left of tests that were killed: a folder is named by the process that made it. */
async function removeDead(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const maker = new RegExp(`^${FOLDER}(\\d+)-`).exec(name)?.[1]
    if (maker === undefined || existsSync(`/proc/${maker}`)) continue
    await removeGroups(name)
    await rm(join(tmpdir(), name), { recursive: true, force: true })
  }
}

const logOf = (folder: string): string => readFileSync(join(folder, 'log'), 'utf8').trim()

async function needPackages(): Promise<void> {
  const packages = [...new Set(Object.entries(needed).flatMap(([file, name]) => (existsSync(file) ? [] : [name])))]
  const install = ['install', '-y', '--no-install-recommends', ...packages]
  if (process.getuid?.() !== 0) {
    const what = packages.length === 0 ? '' : `; and first: apt-get update && apt-get ${install.join(' ')}`
    throw new UsageError('SYSTEMD_ROOT', `a system of its own needs root: run this test as root${what}`)
  }
  if (packages.length === 0) return
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const wait = ['-q', '-o', 'DPkg::Lock::Timeout=600']
  await execute('apt-get', [...wait, 'update'], { env }).catch(() => {}) // its old lists may do
  await execute('apt-get', [...wait, ...install], { env, maxBuffer: 1 << 26 }).catch((cause: unknown) => {
    const names = packages.join(', ')
    throw new UsageError('SYSTEMD_TOOLS', `no ${names} here, and apt-get does not give it: ${messageOf(cause)}`, {
      cause
    })
  })
}
