/**
 * Looks at the switch of some hosts from outside and keeps what they send each other: the word of no peer is taken. It
 * sees bytes and not what they mean, because peers encrypt all.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { DiapauseError, UsageError } from '../../node/errors.ts'
import type { Hosts } from './hosts.ts'
import { WireLog } from './wire-log.ts'

export class Wire {
  readonly log = new WireLog()
  readonly #process: ChildProcess
  #lost: number | undefined

  private constructor(child: ChildProcess) {
    this.#process = child
  }

  /** Sees all that hosts send to TCP port `port` from now on. UsageError HOSTS_TOOLS without a C compiler. */
  static async watch(hosts: Hosts, port: number): Promise<Wire> {
    const program = join(hosts.dir, 'wire')
    const built = spawnSync('gcc', ['-O2', '-o', program, join(import.meta.dirname, 'wire.c')], { encoding: 'utf8' })
    if (built.error !== undefined)
      throw new UsageError('HOSTS_TOOLS', 'gcc missing: run  sudo apt-get install -y gcc libc6-dev')
    if (built.status !== 0) throw new DiapauseError('HOSTS_WIRE', `wire.c could not be compiled: ${built.stderr}`)
    const [command, ...args] = [...hosts.onSwitch, program, String(port)]
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    const wire = new Wire(child)
    const ready = Promise.withResolvers<boolean>()
    child.once('exit', () => ready.resolve(false))
    createInterface({ input: child.stdout }).on('line', line => {
      if (line === 'ready') ready.resolve(true)
      else if (line.startsWith('lost ')) wire.#lost = Number(line.slice('lost '.length))
      else wire.log.take(line)
    })
    if (!(await ready.promise)) throw new DiapauseError('HOSTS_WIRE', 'the observer of the switch could not start')
    return wire
  }

  /** Ends it; how many segments passed unseen because it could not keep up. */
  async stop(): Promise<number> {
    const ended = this.#process.exitCode === null && this.#process.signalCode === null && once(this.#process, 'close')
    this.#process.stdin?.end()
    await ended
    if (this.#lost === undefined) throw new DiapauseError('HOSTS_WIRE', 'the observer of the switch ended unasked')
    return this.#lost
  }
}
