/** One host as an operator has it who sets it up by hand: commands with their output and exit codes, and the peer's process. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { apiSocketPath } from '../../node/edge/api.ts'
import { ApiClient } from '../../node/edge/client.ts'
import type { ClusterMember, ClusterStatus } from '../../node/edge/cluster-view.ts'
import { killAll, processes, tree, waitUntil } from '../demo/processes.ts'

const main = join(import.meta.dirname, '../../node/main.ts')

/** Longest wait for anything. Several times what a busy machine with two cores took. */
const LIMIT_MS = 90_000

export interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

export class Member {
  readonly name: string
  readonly address: string
  readonly dataDir: string
  readonly configFile: string
  readonly client: ApiClient
  #process: ChildProcess | undefined

  /** `dir`: of the whole scenario. `folder`: its data folder in there, by default its name. */
  constructor(dir: string, name: string, address: string, folder = name) {
    this.name = name
    this.address = address
    this.dataDir = join(dir, folder)
    this.configFile = join(this.dataDir, 'peer.toml')
    this.client = new ApiClient(apiSocketPath(join(this.dataDir, 'run')))
  }

  /** The options that tell init and join what this host is. */
  get setup(): string[] {
    return ['--name', this.name, '--data-dir', this.dataDir, '--listen', this.address, '--advertise', this.address]
  }

  /** `diapause ARGS`. */
  run(...args: string[]): Promise<Ended> {
    const command = ['--pdeathsig', 'KILL', process.execPath, main, ...args]
    const child = spawn('setpriv', command, { stdio: ['ignore', 'pipe', 'pipe'] })
    let [out, err] = ['', '']
    child.stdout.on('data', (part: Buffer) => (out += part.toString()))
    child.stderr.on('data', (part: Buffer) => (err += part.toString()))
    return new Promise(resolve => child.on('close', code => resolve({ code, out, err })))
  }

  /** `diapause ARGS --config FILE`, which must succeed: what it printed. */
  async ask(...args: string[]): Promise<string> {
    const { code, out, err } = await this.run(...args, '--config', this.configFile)
    if (code !== 0) throw new Error(`diapause ${args.join(' ')} at ${this.name} ended with ${code}: ${err}`)
    return out.trimEnd()
  }

  /** `diapause up`; resolves when it answers. */
  async start(): Promise<void> {
    const log = openSync(join(this.dataDir, 'log'), 'a', 0o600)
    const command = ['--pdeathsig', 'KILL', process.execPath, '--max-semi-space-size=1', main]
    const child = spawn('setpriv', [...command, 'up', '--config', this.configFile], { stdio: ['ignore', log, log] })
    closeSync(log)
    this.#process = child
    await until(`${this.name} to answer`, async () => {
      if (child.exitCode !== null) throw new Error(`${this.name} ended with ${child.exitCode}: ${this.logTail()}`)
      return (await this.client.status().catch(() => undefined))?.pid === child.pid
    })
  }

  get pid(): number {
    const pid = this.#process?.pid
    if (pid === undefined) throw new Error(`${this.name} was not started`)
    return pid
  }

  /** kill -9 with all its VMs, as when a host loses power. */
  async kill(): Promise<void> {
    if (this.#process?.exitCode !== null || this.#process.signalCode !== null) return
    const pids = tree(this.pid)
    killAll(pids)
    await waitUntil(() => !processes().some(each => pids.includes(each.pid)), 10_000)
  }

  /** SIGTERM; the exit code. */
  async stop(): Promise<number | null> {
    this.#process?.kill('SIGTERM')
    return await this.end()
  }

  /** The exit code of a peer that ends by itself. */
  async end(): Promise<number | null> {
    await until(`${this.name} to end`, () => this.#process?.exitCode !== null || this.#process.signalCode !== null)
    return this.#process?.exitCode ?? null
  }

  /** Waits until the cluster as this peer sees it is so. */
  async sees(what: string, holds: (status: ClusterStatus) => boolean): Promise<ClusterStatus> {
    let last: ClusterStatus | undefined
    try {
      await until(`${this.name} to see ${what}`, async () => {
        last = await this.client.members().catch(() => last)
        return last !== undefined && holds(last)
      })
    } catch (error) {
      throw new Error(`${(error as Error).message}; it sees ${JSON.stringify(last)}`, { cause: error })
    }
    return last as ClusterStatus
  }

  async member(name: string): Promise<ClusterMember | undefined> {
    return (await this.client.members()).members.find(member => member.name === name)
  }

  logTail(): string {
    return readFileSync(join(this.dataDir, 'log'), 'utf8').split('\n').slice(-6).join('\n')
  }
}

/** Names of the members that vote, when everything is settled and connected as `observer` sees it; sorted. */
export const votersOf = (status: ClusterStatus): string[] =>
  status.members.flatMap(member => (member.votes ? [member.name] : [])).sort()

/** Polls until it is so. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + LIMIT_MS
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`waited ${LIMIT_MS / 1000} s in vain for ${what}`)
    await sleep(50)
  }
}
