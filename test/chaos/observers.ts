/**
 * Those who look at a cluster from outside while it is broken, and write down what they see. Peers' events tell when somebody
 * decided what; whether a promise held is judged by what no peer says: beats on the VMs' own network, consoles, /proc.
 */
import { messageOf } from '../../node/errors.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { EventOf, SeenEvent } from '../demo/events.ts'
import type { BankReport } from '../guest/console.ts'
import type { Bank } from '../scenarios/bank.ts'
import { type Generations, History, type RecordSeen } from './history.ts'
import { CONNECTIONS_BROKE, heard } from './promises.ts'
import type { Rig } from './rig.ts'
import type { Timeline } from './timeline.ts'

/** Of a VM from each other one, before its connection counts as moving. */
const MOVED = 20
const SAY_AGAIN_MS = 1_000
/** A bank reports four times a second; twenty of these, for a busy machine. A guess. */
const RECENT_MS = 5_000

/** CLOCK_MONOTONIC, as `beats.c` has it. */
export const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6

/** Peer p1 is at home on h1. */
export const hostOf = (peer: string): string => peer.replace(/^p/, 'h')

/** What peers tell, as far as it is needed to know who was to run what, and what they promised. */
export class Listener {
  readonly history = new History()
  /** VM → the newest generation in which it ran. */
  readonly runs = new Map<string, number>()
  epochs = 0
  takeovers = 0
  readonly #timeline: Timeline
  readonly #now: () => number
  readonly #told = new Set<string>()
  #names: ReadonlyMap<string, string> = new Map()
  /** What was told before anybody said who is who. */
  readonly #early: (() => void)[] = []

  /** `now`: on the clock of the observer of beats, ms. */
  constructor(timeline: Timeline, now: () => number = monotonicMs) {
    this.#timeline = timeline
    this.#now = now
  }

  get generations(): Generations {
    return this.history.generations
  }

  get newestGeneration(): number {
    return this.history.newest
  }

  /** Id of a peer → its name. */
  know(names: ReadonlyMap<string, string>): void {
    this.#names = names
    for (const tell of this.#early.splice(0)) tell()
  }

  event({ by, event }: SeenEvent): void {
    const host = hostOf(by)
    const atMs = this.#now()
    if (event.kind === 'epoch.committed' || event.kind === 'epoch.aborted') {
      const is = event.kind === 'epoch.committed' ? 'committed' : `aborted: ${event.reason}`
      if (event.kind === 'epoch.committed') this.history.onCommitted({ epoch: event.epoch, atMs })
      else this.history.onAborted(event.epoch)
      if (!this.#once(`${event.epoch} ${event.kind}`)) return
      if (event.kind === 'epoch.committed') this.epochs++
      this.#timeline.add('epoch', `epoch ${event.epoch} ${is}`, { host })
    } else if (event.kind === 'takeover.decided') {
      const owners = this.hosts(event.owners)
      if (this.#names.size > 0) this.#decided(event, atMs)
      else this.#early.push(() => this.#decided(event, atMs))
      if (!this.#once(`takeover ${event.generation}`)) return
      this.takeovers++
      const where = Object.entries(owners).map(each => each.join(' to '))
      const what = `generation ${event.generation} from epoch ${event.epoch}: ${where.join(', ')}`
      this.#timeline.add('decision', what, { host })
    } else if (event.kind === 'vm.resumed' || event.kind === 'vm.started') {
      const { vm, generation } = event
      this.history.onRuns({ generation, epoch: event.kind === 'vm.resumed' ? event.epoch : 0, vm, host, atMs })
      this.runs.set(vm, Math.max(this.runs.get(vm) ?? 0, generation))
      this.#timeline.add('vm', `${vm} runs in generation ${generation}`, { host })
    } else this.#tell(host, event)
  }

  /** In a time without faults. */
  record(record: RecordSeen & Pick<GroupRecord, 'owners'>): void {
    this.history.onRecord(record, this.hosts(record.owners), this.#now())
  }

  #decided({ generation, epoch, owners }: EventOf<'takeover.decided'>, atMs: number): void {
    this.history.onDecided({ generation, epoch, owners: this.hosts(owners), atMs })
  }

  /** Ids of peers → names of their hosts. */
  hosts(owners: Readonly<Record<string, string>>): Record<string, string> {
    return Object.fromEntries(Object.entries(owners).map(([vm, id]) => [vm, hostOf(this.#names.get(id) ?? id)]))
  }

  #tell(host: string, event: SeenEvent['event']): void {
    if (event.kind === 'liveness' && event.liveness !== 'alive') {
      const who = hostOf(this.#names.get(event.peer) ?? event.peer)
      this.#timeline.add('decision', `holds ${who} for ${event.liveness}: ${event.why}`, { host })
    } else if (event.kind === 'lease.lapsed')
      this.#timeline.add('decision', `lease of ${event.key} has lapsed`, { host })
    else if (event.kind === 'lease.lost') this.#timeline.add('decision', `lease of ${event.key} is lost`, { host })
    else if (event.kind === 'vm.failed') this.#timeline.add('vm', `${event.vm} failed: ${event.reason}`, { host })
    else if (event.kind === 'vm.complete')
      this.#timeline.add('vm', `${event.vm} has all its memory: it asked for ${event.pagesFaulted} pages`, { host })
    else if (event.kind === 'vm.destroyed') this.#timeline.add('vm', `${event.vm} is ended here`, { host })
  }

  #once(what: string): boolean {
    if (this.#told.has(what)) return false
    this.#told.add(what)
    return true
  }
}

/** VMs that are not heard just now from the hosts that are to run them. `record`: the group's, in a time without faults. */
export function unheard({ bank, lan }: Pick<Rig, 'bank' | 'lan'>, listener: Listener, record: GroupRecord): string[] {
  const owners = listener.hosts(record.owners)
  return bank.vms.flatMap(vm => heard(vm, lan.log.stints(vm).at(-1), owners[vm], monotonicMs()))
}

/**
 * Resolves when every VM has got transfers from every other, counted from the lowest that was seen since this was asked: a VM that
 * goes back to an epoch has got fewer. Banks that an epoch has caught at rest for an audit are told to go on.
 */
export async function moneyMoves(bank: Bank): Promise<void> {
  const sinceMs = performance.timeOrigin + performance.now()
  const least = new Map<string, number>()
  const others = bank.vms.length - 1
  let saidMs = Number.NEGATIVE_INFINITY
  const moves = bank.until('money to move on every connection', async () => {
    if (performance.now() - saidMs > SAY_AGAIN_MS) {
      saidMs = performance.now()
      await bank.type('go').catch(() => {}) // peers that just start; again in a second
    }
    const moving = [...bank.consoles.latest.values()]
      .filter(({ atMs }) => atMs > sinceMs)
      .filter(({ latest }) => latest.conns === 2 * others && hasMoved(latest, least))
    return moving.length === bank.vms.length ? true : undefined
  })
  await moves.catch((error: unknown) => {
    throw speak(bank) ? new Error(`${messageOf(error)}: ${CONNECTIONS_BROKE}`, { cause: error }) : error
  })
}

/** Whether all have said something on their consoles just now. */
function speak({ consoles, vms }: Bank): boolean {
  const sinceMs = performance.timeOrigin + performance.now() - RECENT_MS
  return [...consoles.latest.values()].filter(({ atMs }) => atMs > sinceMs).length === vms.length
}

function hasMoved({ vm, received }: BankReport, least: Map<string, number>): boolean {
  const all = [...received].map(([from, { count }]) => {
    const key = `${vm} ${from}`
    const low = Math.min(count, least.get(key) ?? count)
    least.set(key, low)
    return count >= low + MOVED
  })
  return all.every(Boolean)
}
