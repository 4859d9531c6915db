/** Hosts of `restore-host.ts`: five processes that store the shards of one VM's images, and are killed and started again. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Host, hosts as hostNames, publicPart } from '../contract/transport-support.ts'
import { ProcessCalls } from './capture-calls.ts'
import type { HostCalls, HostOptions } from './restore-host.ts'
import type { VmSize } from './restore-vm.ts'

const HOSTS = 5

interface Running {
  readonly process: ChildProcess
  readonly calls: ProcessCalls<HostCalls>
}

export class RestoreHosts {
  readonly folder: string
  readonly #names: readonly Host[]
  readonly #running = new Map<number, Running>()

  private constructor(folder: string, names: readonly Host[]) {
    this.folder = folder
    this.#names = names
  }

  /** The first two can have a VM of this size. */
  static async start(size: VmSize): Promise<RestoreHosts> {
    const hosts = new RestoreHosts(await mkdtemp(join(tmpdir(), 'dr-')), await hostNames(HOSTS))
    try {
      for (let host = 0; host < HOSTS; host++) hosts.#start(host)
      for (const host of [0, 1]) await hosts.calls(host).call('hostVm', size)
      await Promise.all(hosts.#names.map((_, host) => hosts.calls(host).call('link', undefined)))
      await hosts.linked()
      return hosts
    } catch (error) {
      await hosts.stop()
      throw error
    }
  }

  calls(host: number): ProcessCalls<HostCalls> {
    const running = this.#running.get(host)
    if (running === undefined) throw new TypeError(`host ${host} does not run`)
    return running.calls
  }

  runs(host: number): boolean {
    return this.#running.has(host)
  }

  /** kill -9, with its VM. Resolves when it is gone; it is as good as that at once. */
  async kill(host: number): Promise<void> {
    const running = this.#running.get(host)
    this.#running.delete(host)
    if (running?.process.exitCode !== null) return
    const gone = once(running.process, 'exit')
    running.process.kill('SIGKILL')
    await gone
  }

  /** With the store that it had; resolves when all that run see each other. */
  async startAgain(host: number): Promise<void> {
    this.#start(host)
    await this.calls(host).call('link', undefined)
    await this.linked()
  }

  async linked(): Promise<void> {
    const ids = [...this.#running.keys()].map(host => this.#names[host]?.id ?? '')
    await Promise.all([...this.#running.values()].map(({ calls }) => calls.call('linked', ids)))
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#running.keys()].map(host => this.kill(host)))
    await rm(this.folder, { recursive: true, force: true })
  }

  #start(host: number): void {
    const name = this.#names[host]
    if (name === undefined) throw new TypeError(`there is no host ${host}`)
    const options: HostOptions = {
      folder: join(this.folder, `${host}`),
      key: Buffer.from(name.key.raw).toString('hex'),
      listen: name.address,
      members: this.#names.map(publicPart)
    }
    const script = new URL('restore-host.ts', import.meta.url)
    const execArgv = ['--max-semi-space-size=1'] // as bootstrap.mjs does
    const child = fork(script, [JSON.stringify(options)], { execArgv })
    this.#running.set(host, { process: child, calls: new ProcessCalls<HostCalls>(child, {}) })
  }
}
