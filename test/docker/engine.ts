/**
 * A Docker engine of our own, for the time of a test: on a Debian machine that has none, beside another that it does not
 * touch, and with no registry of images in reach (base-images.ts makes those). It changes nothing of the host: no NAT, no
 * forwarding, no firewall, no bridge of its own; builds use the host's network, containers stay on theirs.
 *
 * What is missing is installed by apt (as root); what cannot be had is an error that says so. Layers and build cache stay
 * in `.build/docker`, so that a second run builds only what changed; everything else goes with `stop`.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, openSync, readFileSync, rmSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DiapauseError, UsageError, messageOf } from '../../node/errors.ts'
import { killAll, naming, tree, waitUntil } from '../demo/processes.ts'
import { makeBaseImage } from './base-images.ts'
import { debianMirror, run } from './command.ts'

const root = join(import.meta.dirname, '../..')
const keep = join(root, '.build/docker')

/** Of the host's tree of control groups, so that what we leave there is known to be ours. */
const CGROUP = 'diapause-test'

/** Of layers of builds: what two versions of the image take. */
const CACHE = '4gb'

/** dockerd, debootstrap and iptables (which dockerd looks for even where it is to leave it alone), by Debian's package. */
const programs = { dockerd: 'docker.io', docker: 'docker.io', debootstrap: 'debootstrap', iptables: 'iptables' }
/** Their packages are of Debian 13; the files in them run on Debian 12, too. */
const plugins = { 'docker-compose': 'docker-compose', 'docker-buildx': 'docker-buildx' }

export class Engine {
  readonly env: NodeJS.ProcessEnv
  readonly #process: ChildProcess
  readonly #folder: string

  private constructor(process: ChildProcess, folder: string, env: NodeJS.ProcessEnv) {
    this.#process = process
    this.#folder = folder
    this.env = env
  }

  /** With the base image `node:24-bookworm-slim`, and without containers, networks and volumes. */
  static async start(): Promise<Engine> {
    await needPrograms()
    await mkdir(join(keep, 'config/cli-plugins'), { recursive: true })
    await needPlugins()
    await removeDead()
    // Sockets: their paths have at most 107 bytes.
    const folder = await mkdtemp(join(tmpdir(), `diapause-docker-${process.pid}-`))
    const socket = `unix://${folder}/docker.sock`
    const env = { ...process.env, DOCKER_HOST: socket, DOCKER_CONFIG: join(keep, 'config'), DOCKER_BUILDKIT: '1' }
    const engine = new Engine(spawnEngine(folder, socket), folder, env)
    try {
      await engine.#answers()
      await engine.#empty()
      await makeBaseImage(keep, engine.docker)
      return engine
    } catch (error) {
      await engine.stop()
      throw error
    }
  }

  readonly docker = (...args: readonly string[]): Promise<string> => run('docker', args, { env: this.env })

  /** Ends engine and containers and removes what it made beside its images. */
  async stop(): Promise<void> {
    const ended = () => this.#process.exitCode !== null || this.#process.signalCode !== null
    await this.#empty().catch(() => {}) // it may not have come up
    this.#process.kill('SIGTERM')
    if (!(await waitUntil(ended, 30_000))) this.#process.kill('SIGKILL')
    await waitUntil(ended, 5_000)
    await removeFolder(this.#folder)
    await removeCgroups()
  }

  async #answers(): Promise<void> {
    for (let tries = 0; ; tries++) {
      const error = await this.docker('version').then(
        () => undefined,
        (cause: unknown) => cause
      )
      if (error === undefined) return
      if (this.#process.exitCode !== null || tries > 150) {
        const log = readFileSync(join(this.#folder, 'log'), 'utf8').trim().split('\n').slice(-15).join('\n')
        throw new DiapauseError('DOCKER_ENGINE', `the engine did not come up; the end of its log:\n${log}`)
      }
      await new Promise(resolve => setTimeout(resolve, 200))
    }
  }

  /** What another run left that was killed, or this one: networks above all, for the next engine stumbles over them. */
  async #empty(): Promise<void> {
    const containers = (await this.docker('ps', '--all', '--quiet')).split('\n').filter(id => id !== '')
    if (containers.length > 0) await this.docker('rm', '--force', '--volumes', ...containers)
    await this.docker('network', 'prune', '--force')
    await this.docker('volume', 'prune', '--force')
    await this.docker('image', 'prune', '--force') // those that a newer one of the same name has followed
    await this.docker('builder', 'prune', '--force', '--keep-storage', CACHE)
  }
}

/** Dies with us, and waits for another run's engine to end: two on one data folder would spoil it. */
function spawnEngine(folder: string, socket: string): ChildProcess {
  const alone = ['--pdeathsig', 'TERM', 'flock', '--no-fork', '--timeout', '600', join(keep, 'lock')]
  const where = [
    '--data-root',
    join(keep, 'data'),
    '--exec-root',
    join(folder, 'exec'),
    '--pidfile',
    join(folder, 'pid')
  ]
  const host = ['--bridge=none', '--iptables=false', '--ip6tables=false', '--ip-forward=false', '--ip-masq=false']
  const groups = ['--exec-opt', 'native.cgroupdriver=cgroupfs', '--cgroup-parent', `/${CGROUP}`]
  const rest = ['--host', socket, '--storage-driver', 'overlay2', '--userland-proxy=true', ...host, ...groups]
  const log = openSync(join(folder, 'log'), 'a')
  return spawn('setpriv', [...alone, 'dockerd', ...where, ...rest], { stdio: ['ignore', log, log], detached: true })
}

async function needPrograms(): Promise<void> {
  const missing = Object.entries(programs).filter(([name]) => !onPath(name))
  if (missing.length === 0 && process.getuid?.() === 0) return
  const packages = [...new Set(missing.map(([, name]) => name))]
  const install = ['install', '-y', '--no-install-recommends', ...packages]
  if (process.getuid?.() !== 0) {
    const what = missing.length === 0 ? '' : `; and first: apt-get update && apt-get ${install.join(' ')}`
    throw new UsageError('DOCKER_ROOT', `an engine of our own needs root: run this test as root${what}`)
  }
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const wait = ['-q', '-o', 'DPkg::Lock::Timeout=600']
  await run('apt-get', [...wait, 'update'], { env }).catch(() => {}) // its old lists may do
  await run('apt-get', [...wait, ...install], { env }).catch((cause: unknown) => {
    const names = missing.map(([name]) => name).join(', ')
    throw new UsageError(
      'DOCKER_MISSING',
      `no ${names} here and apt-get does not give it, without which no container runs: ${messageOf(cause)}`,
      { cause }
    )
  })
}

const onPath = (name: string): boolean =>
  [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin'].some(folder => existsSync(join(folder, name)))

/** The engine of Debian 12 comes without compose and buildx: they are taken from the next Debian's packages. */
async function needPlugins(): Promise<void> {
  const folder = join(keep, 'config/cli-plugins')
  if (Object.keys(plugins).every(name => existsSync(join(folder, name)))) return
  const apt = join(keep, 'apt')
  await mkdir(join(apt, 'lists/partial'), { recursive: true })
  await mkdir(join(apt, 'cache/archives/partial'), { recursive: true })
  const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg'
  await writeFile(join(apt, 'next.list'), `deb [signed-by=${keyring}] ${debianMirror()} trixie main\n`)
  const settings = {
    'Dir::Etc::SourceList': join(apt, 'next.list'),
    'Dir::Etc::SourceParts': '/dev/null',
    'Dir::State::Lists': join(apt, 'lists'),
    'Dir::Cache': join(apt, 'cache'),
    'APT::Sandbox::User': 'root'
  }
  const options = ['-q', ...Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`])]
  await run('apt-get', [...options, 'update'])
  await run('apt-get', [...options, 'download', ...Object.values(plugins)], { cwd: apt })
  for (const name of await readdir(apt))
    if (name.endsWith('.deb')) await run('dpkg-deb', ['-x', join(apt, name), join(apt, 'unpacked')])
  for (const name of Object.keys(plugins))
    await copyFile(join(apt, 'unpacked/usr/libexec/docker/cli-plugins', name), join(folder, name))
  rmSync(apt, { recursive: true })
}

/** What is left of engines whose tests were killed: a folder is named by the process that made it. */
async function removeDead(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const maker = /^diapause-docker-(\d+)-/.exec(name)?.[1]
    if (maker !== undefined && !existsSync(`/proc/${maker}`)) await removeFolder(join(tmpdir(), name))
  }
}

/** With the containers of an engine that was killed, which go on without it, and its mounts. */
async function removeFolder(folder: string): Promise<void> {
  killAll(naming(`${folder}/`).flatMap(({ pid }) => tree(pid)))
  for (const mount of mountsBelow(folder)) await run('umount', ['--lazy', mount]).catch(() => {})
  await rm(folder, { recursive: true, force: true })
}

const mountsBelow = (folder: string): string[] =>
  readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .flatMap(line => line.split(' ')[1] ?? [])
    .filter(path => path.startsWith(`${folder}/`))

async function removeCgroups(): Promise<void> {
  const args = ['/sys/fs/cgroup', '-depth', '-type', 'd', '-path', `*/${CGROUP}*`, '-exec', 'rmdir', '{}', '+']
  await run('find', args).catch(() => {}) // a group that is busy goes with the next run
}
