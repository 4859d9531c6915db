/**
 * A whole diapause on this machine: N peers as separate processes, each with its own folder, identity, config file and
 * address (a loopback port, or a host of its own), below one temporary folder. For the demo, scenario tests and benchmarks.
 *
 * It leaves nothing: peers die with this process (`setpriv --pdeathsig`, unless `detached`), and `stop` ends what still
 * runs, removes the folder and tells what the peers should have cleaned up by themselves and did not.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stringify } from 'smol-toml'
import type { Config } from '../../config/schema.ts'
import { apiSocketPath } from '../../node/edge/api.ts'
import { ApiClient } from '../../node/edge/client.ts'
import { DiapauseError, hasCode, messageOf } from '../../node/errors.ts'
import { loadOrCreateIdentity } from '../../node/host/identity.ts'
import { readEvent, type SeenEvent } from './events.ts'
import type { Host, Hosts } from '../hosts/hosts.ts'
import { killAll, naming, processes, signal, socketsIn, tree, waitUntil } from './processes.ts'

const main = join(import.meta.dirname, '../../node/main.ts')

/** How long a peer may take to end after SIGTERM before that counts as a fault. */
const STOP_LIMIT_MS = 10_000

/** Test files at the same time that share no ports. */
const LANES = 4

/** Where peers listen that have a host of their own. */
export const HOST_PORT = 7400

type Role = Config['members'][number]['role']

export type Settings = {
  readonly [Name in Exclude<keyof Config, 'cluster' | 'peer' | 'members'>]?: Partial<Config[Name]>
}

export interface ClusterOptions {
  readonly peers: number
  /** Sections of a peer's config. Default: epochs on request only, a code that fits the number of peers. */
  readonly settings?: Settings | ((peer: { readonly name: string; readonly dir: string }) => Settings)
  /** The first peers' roles; the others store. */
  readonly roles?: readonly Role[]
  /** As many as peers, one for each. Default: all are at home on this machine. */
  readonly hosts?: Hosts
  /** Peers outlive this process. */
  readonly detached?: boolean
  /** A module that every peer loads before its program. */
  readonly preload?: string
  /** Beside this process's own. */
  readonly environment?: NodeJS.ProcessEnv | ((name: string) => NodeJS.ProcessEnv)
  /** A peer ended that was not told to. Default: whoever waits for something hears of it (`check`). */
  readonly onEnd?: (peer: ClusterPeer, how: string) => void
  /** Called for every event of every peer as it comes. */
  readonly onEvent?: (seen: SeenEvent) => void
}

export interface ClusterPeer {
  readonly name: string
  readonly id: string
  readonly role: Role
  /** Undefined: this machine. */
  readonly host: Host | undefined
  readonly dataDir: string
  readonly runDir: string
  readonly configFile: string
  readonly logFile: string
  readonly socketPath: string
  readonly consoleDir: string
  readonly client: ApiClient
}

interface Running {
  readonly process: ChildProcess
  /** Its end is wanted: killed or told to stop. */
  ending: boolean
  readonly follower: AbortController
}

/** The code for so many peers: any two may be lost where there are five, and one with the data of two where fewer. */
export function codeFor(peers: number): { k: number; m: number } {
  return { k: Math.max(1, Math.min(3, peers - 2)), m: 2 }
}

export class Cluster {
  readonly dir: string
  readonly events: SeenEvent[] = []
  readonly #peers: ClusterPeer[]
  readonly #options: ClusterOptions
  readonly #running = new Map<string, Running>()
  readonly #killed = new Set<string>()
  readonly #stopped = new Set<string>()
  readonly #seen = new Set<string>()
  #trouble: Error | undefined

  private constructor(dir: string, peers: ClusterPeer[], options: ClusterOptions) {
    this.dir = dir
    this.#peers = peers
    this.#options = options
  }

  /** Makes the folder, secret, identities and config files; starts nothing. */
  static async create(options: ClusterOptions): Promise<Cluster> {
    const { hosts } = options
    const dir = hosts === undefined ? await mkdtemp(join(tmpdir(), 'diapause-')) : join(hosts.dir, 'cluster')
    try {
      await mkdir(dir, { recursive: true })
      const secretFile = join(dir, 'secret')
      await writeFile(secretFile, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 })
      const addresses =
        hosts?.all.map(host => `/ip4/${host.address}/tcp/${HOST_PORT}`) ?? (await loopback(options.peers))
      const members = await Promise.all(
        addresses.slice(0, options.peers).map(async (address, i) => {
          const name = `p${i + 1}`
          const dataDir = join(dir, name, 'data')
          await mkdir(dataDir, { recursive: true, mode: 0o700 })
          const { peerId: id } = await loadOrCreateIdentity(dataDir)
          return { name, dataDir, id, address, role: options.roles?.[i] ?? 'storage', host: hosts?.all[i] }
        })
      )
      const peers = await Promise.all(
        members.map(async ({ name, dataDir, id, address, role, host }): Promise<ClusterPeer> => {
          const home = join(dir, name)
          const [runDir, configFile, logFile] = [join(home, 'run'), join(home, 'peer.toml'), join(home, 'log')]
          const { settings } = options
          const config = {
            shards: codeFor(options.peers),
            epochs: { intervalMs: 0 },
            ...(typeof settings === 'function' ? settings({ name, dir: home }) : settings),
            cluster: { name: 'demo', secretFile },
            peer: { name, dataDir, runDir, listen: address },
            members: members.map(member => ({
              name: member.name,
              id: member.id,
              address: member.address,
              role: member.role
            }))
          }
          await writeFile(configFile, stringify(config))
          const socketPath = apiSocketPath(runDir)
          const client = new ApiClient(socketPath)
          const consoleDir = join(runDir, 'console')
          return { name, id, role, host, dataDir, runDir, configFile, logFile, socketPath, consoleDir, client }
        })
      )
      return new Cluster(dir, peers, options)
    } catch (error) {
      await rm(dir, { recursive: true, force: true })
      throw error
    }
  }

  get peers(): readonly ClusterPeer[] {
    return this.#peers
  }

  /** A peer that was made by `diapause join`: started, killed and stopped as the founders from now on. */
  adopt(peer: ClusterPeer): void {
    this.#peers.push(peer)
  }

  /** Throws where a peer has ended unasked or spoken nonsense; the waiting loops of callers call it each turn. */
  check(): void {
    if (this.#trouble !== undefined) throw this.#trouble
  }

  /** Peers whose process runs and is to go on, and does not stand still. */
  get alive(): ClusterPeer[] {
    return this.peers.filter(({ name }) => this.#running.get(name)?.ending === false && !this.#stopped.has(name))
  }

  /** `program`: the main.ts of another checkout. */
  startPeer(peer: ClusterPeer, program = main): void {
    const log = openSync(peer.logFile, 'a', 0o600)
    const { preload, detached = false, environment: more } = this.#options
    const imports = preload === undefined ? [] : ['--import', preload]
    const node = [process.execPath, '--max-semi-space-size=1', ...imports, program, 'up', '--config', peer.configFile]
    const where = peer.host === undefined ? [] : (this.#options.hosts?.on(peer.host) ?? [])
    const [command = '', ...args] = [...where, ...(detached ? [] : ['setpriv', '--pdeathsig', 'KILL']), ...node]
    const env = { ...process.env, ...(typeof more === 'function' ? more(peer.name) : more) }
    const child = spawn(command, args, { stdio: ['ignore', log, log], detached, env })
    closeSync(log)
    const running: Running = { process: child, ending: false, follower: new AbortController() }
    this.#running.set(peer.name, running)
    this.#killed.delete(peer.name)
    this.#stopped.delete(peer.name)
    child.once('error', error => this.#fail(peer, `could not be started: ${error.message}`))
    child.once('exit', (code, signalName) => {
      running.follower.abort()
      if (!running.ending) this.#ended(peer, signalName ?? `exit code ${code}`)
      running.ending = true
    })
    void this.#follow(peer, running)
  }

  /** Resolves when every running peer says that it is connected to every other and holds it for alive. */
  async allConnected(limitMs: number, tell: (ready: number) => void = () => {}): Promise<void> {
    let ready = 0
    const deadline = performance.now() + limitMs
    while (performance.now() < deadline) {
      this.check()
      const alive = new Set(this.alive.map(peer => peer.id))
      const answers = await Promise.all(
        this.alive.map(async ({ client, id }) => {
          const status = await client.status().catch(() => undefined)
          const others = status?.members.filter(member => alive.has(member.id) && member.id !== id)
          return others?.every(member => member.liveness === 'alive' && member.connected) === true
        })
      )
      ready = answers.filter(Boolean).length
      tell(ready)
      if (ready === alive.size) return
      await new Promise(resolve => setTimeout(resolve, 100))
    }
    throw new DiapauseError(
      'DEMO_CONNECT',
      `after ${limitMs / 1000} s only ${ready} of ${this.alive.length} peers see all others alive; their logs are ${join(this.dir, 'p*/log')}`
    )
  }

  /** kill -9 of the peer together with all its VMs, as when a host loses power. Resolves when they are gone. */
  async killPeer(peer: ClusterPeer): Promise<void> {
    const pid = this.pidOf(peer)
    const running = this.#running.get(peer.name)
    if (running !== undefined) running.ending = true
    this.#killed.add(peer.name)
    const pids = tree(pid)
    killAll(pids)
    await waitUntil(() => !processes().some(each => pids.includes(each.pid)), STOP_LIMIT_MS)
  }

  /** Tells a peer to stop, which ends its VMs, and waits until it has. */
  async endPeer(peer: ClusterPeer): Promise<void> {
    const pid = this.pidOf(peer)
    const running = this.#running.get(peer.name)
    if (running !== undefined) running.ending = true
    signal(pid, 'SIGTERM')
    await waitUntil(() => !processes().some(each => each.pid === pid), STOP_LIMIT_MS)
  }

  /** SIGSTOP to the peer alone: its VMs run on, and nobody serves them. */
  stopPeer(peer: ClusterPeer): void {
    signal(this.pidOf(peer), 'SIGSTOP')
    this.#stopped.add(peer.name)
  }

  continuePeer(peer: ClusterPeer): void {
    signal(this.pidOf(peer), 'SIGCONT')
    this.#stopped.delete(peer.name)
  }

  pidOf(peer: ClusterPeer): number {
    const running = this.#running.get(peer.name)
    if (running?.process.pid === undefined || running.ending) throw new Error(`${peer.name} does not run`)
    return running.process.pid
  }

  /**
   * Tells every peer to stop, waits, ends by force what did not, removes the folder. What came back are the faults: each
   * process, socket or folder that should have been gone. Call it once more after an error: it never throws for that.
   */
  async stop(): Promise<string[]> {
    const faults: string[] = []
    const stopping = [...this.#running].filter(([name]) => !this.#killed.has(name))
    for (const [, running] of this.#running) running.follower.abort()
    for (const [, running] of stopping) {
      running.ending = true
      if (running.process.pid === undefined || running.process.exitCode !== null) continue
      for (const name of ['SIGTERM', 'SIGCONT'] as const) signal(running.process.pid, name) // it may stand still
    }
    const ended = (running: Running) => running.process.exitCode !== null || running.process.signalCode !== null
    await waitUntil(() => stopping.every(([, running]) => ended(running)), STOP_LIMIT_MS)
    for (const [name, running] of stopping) {
      if (!ended(running)) faults.push(`peer ${name} did not stop within ${STOP_LIMIT_MS / 1000} s of SIGTERM`)
      else if (running.process.exitCode !== 0)
        faults.push(
          `peer ${name} stopped with ${running.process.signalCode ?? `exit code ${running.process.exitCode}`}`
        )
      else faults.push(...(await socketsIn(join(this.dir, name))).map(path => `socket ${path}`))
    }
    const orphans = naming(`${this.dir}/`).filter(
      each => !stopping.some(([, running]) => running.process.pid === each.pid)
    )
    faults.push(...orphans.map(each => `process ${each.pid}: ${each.command.slice(0, 100)}`))
    faults.push(...(await removeCluster(this.dir)))
    this.#running.clear()
    return faults
  }

  /** Lets detached peers go on without us. */
  leave(): void {
    for (const [, running] of this.#running) {
      running.ending = true
      running.follower.abort()
      running.process.unref()
    }
  }

  /** Reads the peer's events until it ends; while its API is not up yet, tries again. */
  async #follow(peer: ClusterPeer, running: Running): Promise<void> {
    const { signal: aborted } = running.follower
    while (!running.ending && !aborted.aborted) {
      try {
        for await (const value of peer.client.events({ follow: true, signal: aborted })) this.#take(peer, value)
      } catch (error) {
        if (error instanceof TypeError) this.#fail(peer, `sent an event that cannot be read: ${error.message}`)
      }
      await new Promise(resolve => setTimeout(resolve, 50))
    }
  }

  #take(peer: ClusterPeer, value: unknown): void {
    const event = readEvent(value)
    if (event === undefined) return
    // After a reconnection the stream begins with what we have.
    const key = `${peer.name} ${event.kind} ${event.atMs}`
    if (this.#seen.has(key)) return
    this.#seen.add(key)
    const seen = { by: peer.name, event }
    this.events.push(seen)
    this.#options.onEvent?.(seen)
  }

  #ended(peer: ClusterPeer, how: string): void {
    if (this.#options.onEnd === undefined) return this.#fail(peer, `ended by itself (${how})`)
    this.#killed.add(peer.name)
    this.#options.onEnd(peer, how)
  }

  #fail(peer: ClusterPeer, what: string): void {
    const [last = 'nothing was logged'] = logTail(peer, 1) // whoever hears of this may remove the folder
    this.#trouble ??= new DiapauseError('DEMO_PEER', `peer ${peer.name} ${what}: ${last}; its log is ${peer.logFile}`)
  }
}

/** Ends every process that names the folder and removes it; the faults. Also for clusters of processes long gone. */
export async function removeCluster(dir: string): Promise<string[]> {
  const left = () => naming(`${dir}/`)
  killAll(left().map(each => each.pid))
  const gone = await waitUntil(() => left().length === 0, 5_000)
  const faults = gone ? [] : left().map(each => `process ${each.pid} survived kill -9: ${each.command.slice(0, 100)}`)
  await rm(dir, { recursive: true, force: true }).catch((error: unknown) => {
    faults.push(`folder ${dir}: ${messageOf(error)}`)
  })
  return faults
}

/** The end of a peer's log for people: the message of a line that pino wrote, other lines as they are. */
export function logTail(peer: ClusterPeer, lines: number): string[] {
  // It may never have started.
  const text = existsSync(peer.logFile) ? readFileSync(peer.logFile, 'utf8') : ''
  const tail = text.split('\n').filter(line => line !== '' && !line.startsWith('    at ')) // no stack
  return tail.slice(-lines).map(line => {
    try {
      const { msg, err, error } = JSON.parse(line) as { msg?: string; err?: { message?: string }; error?: unknown }
      return [msg, err?.message ?? error].filter(part => typeof part === 'string').join(': ')
    } catch {
      return line
    }
  })
}

/**
 * Loopback ports that nobody listens on now, all different. Below 32768, where Linux does not pick the local ports of
 * outgoing connections, so that none is taken between here and the peer's start. Test files that run at the same time have
 * ports of their own, so that none takes that of a peer which another has killed and will start again.
 */
async function freePorts(count: number): Promise<number[]> {
  const lane = Number(process.env['VITEST_POOL_ID'] ?? 0) % LANES
  const ports = new Set<number>()
  for (let tries = 0; ports.size < count; tries++) {
    if (tries > 100 * count)
      throw new DiapauseError('DEMO_PORTS', 'found no free loopback ports between 20000 and 32000')
    // Of each 160 the lower half: 80 above a peer's port is that of its API, if it is free then.
    const block = Math.floor(Math.random() * 18) * LANES + lane
    const port = 20_000 + block * 160 + Math.floor(Math.random() * 80)
    if (!ports.has(port) && (await isFree(port))) ports.add(port)
  }
  return [...ports]
}

export const loopback = async (count: number): Promise<string[]> =>
  (await freePorts(count)).map(port => `/ip4/127.0.0.1/tcp/${port}`)

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', error => (hasCode(error, 'EADDRINUSE') ? resolve(false) : reject(error)))
    server.listen({ port, host: '127.0.0.1' }, () => server.close(() => resolve(true)))
  })
}
