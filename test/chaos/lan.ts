/**
 * The outside of the VMs: a network to which every host plugs a second card, and a TAP device behind it for its VMs (`switch.uplink`).
 * Banks beat there, and somebody at the switch writes down what comes in from which host and when. Nobody's word is taken
 * for that, no peer sees it, and the hosts' own network may be broken meanwhile: where two copies of a VM could be seen,
 * they are seen here.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { DiapauseError, UsageError } from '../../node/errors.ts'
import type { Host, Hosts } from '../hosts/hosts.ts'
import { BeatLog } from './beat-log.ts'

/** Of every host, as `switch.uplink` has it. */
export const UPLINK = 'tap:vms'

/** So often a bank beats: a VM that is seen twice for less than that is not seen. */
export const BEAT_MS = 50

const portOf = ({ name }: Host): string => `lan-${name}`

export class Lan {
  readonly log: BeatLog
  readonly #process: ChildProcess
  #lost: number | undefined

  private constructor(child: ChildProcess, log: BeatLog) {
    this.#process = child
    this.log = log
  }

  /** UsageError HOSTS_TOOLS without a C compiler. */
  static async make(hosts: Hosts): Promise<Lan> {
    await hosts.ip(hosts.onSwitch, ['link add br1 type bridge mcast_snooping 0', 'link set br1 up'])
    for (const host of hosts.all) {
      const port = portOf(host)
      await hosts.cable(host, 'eth1', port)
      await hosts.ip(hosts.onSwitch, [`link set ${port} master br1 up`])
      const tap = ['tuntap add vms mode tap', 'link set vms master vms0 up']
      const bridge = ['link add vms0 type bridge mcast_snooping 0', 'link set vms0 up', 'link set eth1 master vms0 up']
      await hosts.ip(hosts.on(host), [...bridge, ...tap])
    }
    const child = observer(hosts)
    const log = new BeatLog(new Map(hosts.all.map(host => [portOf(host), host.name])))
    const lan = new Lan(child, log)
    const ready = Promise.withResolvers<boolean>()
    child.once('exit', () => ready.resolve(false))
    createInterface({ input: child.stdout ?? process.stdin }).on('line', line => {
      if (line === 'ready') ready.resolve(true)
      else if (line.startsWith('lost ')) lan.#lost = Number(line.slice('lost '.length))
      else log.take(line)
    })
    if (!(await ready.promise)) throw new DiapauseError('CHAOS_LAN', 'the observer of the VMs could not start')
    return lan
  }

  /** Ends the observer; how many beats passed unseen because it could not keep up. */
  async stop(): Promise<number> {
    const ended = this.#process.exitCode === null && this.#process.signalCode === null && once(this.#process, 'close')
    this.#process.stdin?.end()
    await ended
    if (this.#lost === undefined) throw new DiapauseError('CHAOS_LAN', 'the observer of the VMs ended unasked')
    return this.#lost
  }
}

function observer(hosts: Hosts): ChildProcess {
  const program = join(hosts.dir, 'beats')
  const source = join(import.meta.dirname, 'beats.c')
  const built = spawnSync('gcc', ['-O2', '-o', program, source], { encoding: 'utf8' })
  if (built.error !== undefined)
    throw new UsageError('HOSTS_TOOLS', 'gcc missing: run  sudo apt-get install -y gcc libc6-dev')
  if (built.status !== 0) throw new DiapauseError('CHAOS_LAN', `beats.c could not be compiled: ${built.stderr}`)
  const [command = '', ...args] = [...hosts.onSwitch, program, ...hosts.all.map(portOf)]
  return spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
}
