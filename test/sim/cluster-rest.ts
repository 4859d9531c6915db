/** Groups that people let rest and start again, as `node/operations/rest.ts` does it; and what must hold of one that rests. */
import { restoreFacts } from '../../node/agents/restore-facts.ts'
import { planRestore } from '../../node/planning/placement.ts'
import { keptEpochs } from '../../protocols/epoch/kept.ts'
import { restNow, startGroup } from '../../protocols/epoch/rest.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { leavingHosts, placeable } from '../../protocols/membership/record.ts'
import type { FaultyWorld } from './cluster-faults.ts'
import type { SimPeer } from './cluster-peer.ts'
import type { Kernel } from './kernel.ts'
import type { Book, Run } from './world-book.ts'

/**
 * Who has not heard that its group rests at once is silent when its lease is over, and so is its VM a little later. A guess: twice
 * the lease, with drift.
 */
const ENDS_MS = 1_000

/** Now and then, until `ended`. */
export function tendRests(world: FaultyWorld, ended: () => boolean): void {
  const { kernel } = world
  kernel.at(kernel.between(30, 500), 'people look at who rests', () => {
    if (ended()) return
    tendOne(world)
    tendRests(world, ended)
  })
}

function tendOne({ kernel, groups, peers }: FaultyWorld): void {
  const up = peers()
  if (up.length === 0) return
  const peer = kernel.pick(up)
  const record = peer.directory.get(kernel.pick(groups))
  if (record === undefined || record.removed) return
  if (record.resting) {
    const { epoch } = kernel.pick(keptEpochs(record))
    // Of a group with output commit nothing is taken back: people were told not to.
    return startRested(peer, record, record.outputCommit ? record.committed?.epoch : epoch)
  }
  const now = kernel.chance(0.25)
  kernel.note(() => `PEOPLE let ${record.id} rest${now ? ' now' : ''}`)
  const resting = now
    ? peer.directory.change(record.id, restNow(record.generation))
    : peer.epochClock.propose(record.id, 'request', 'the group is to rest', true)
  resting.catch(() => {})
}

/** Starts all that rest. */
export function helpRested({ groups, peers }: FaultyWorld): void {
  const [peer] = peers()
  for (const id of peer === undefined ? [] : groups) {
    const record = peer?.directory.get(id)
    if (peer !== undefined && record?.resting) startRested(peer, record)
  }
}

/** Nothing where it does not rest, or no plan is to be had. */
function startRested(
  { directory, membership, detector, life }: SimPeer,
  record: GroupRecord,
  epoch = record.committed?.epoch
): void {
  const members = membership.record()
  const where = { hosts: () => placeable(members), leaving: () => leavingHosts(members), detector, directory }
  const plan = planRestore(record, restoreFacts(where, record))
  if (plan === undefined || epoch === undefined) return
  life.host.kernel.note(() => `PEOPLE start ${record.id} from epoch ${epoch}`)
  directory.change(record.id, startGroup(record.generation, epoch, plan.owners)).catch(() => {})
}

interface Resting {
  /** By an epoch: its VMs stand still already. */
  readonly byEpoch: boolean
  readonly sinceMs: number
}

/** VMs of groups that rest, as the world knows them. */
export class Rests {
  readonly #world: { readonly kernel: Kernel; readonly book: Book }
  readonly #fail: (what: string) => void
  readonly #resting = new Map<string, Resting>()
  /** Runs that have not ended, as far as they were looked at. */
  #live: Run[] = []
  #looked = 0
  /** Run → since when it executes although it should not, on a host that could end it. */
  readonly #late = new Map<Run, number>()
  /** How often a group came to rest. */
  count = 0

  constructor(world: { readonly kernel: Kernel; readonly book: Book }, fail: (what: string) => void) {
    this.#world = world
    this.#fail = fail
  }

  /** `record` is the newest value of its register, and `before` the one before it. */
  chosen(before: GroupRecord | undefined, record: GroupRecord): void {
    const { id, resting, removed, committed } = record
    if (!resting || removed) this.#resting.delete(id)
    else if (!this.#resting.has(id)) {
      const byEpoch = before?.open?.rest === true && before.open.epoch === committed?.epoch
      this.#resting.set(id, { byEpoch, sinceMs: this.#world.kernel.nowMs })
      this.count += 1
    }
  }

  /** No VM of a group that rests runs. */
  standStill(): void {
    if (this.#resting.size === 0) return
    const { book, kernel } = this.#world
    this.#live = [...this.#live, ...book.runs.slice(this.#looked)].filter(({ life }) => !life.dead)
    this.#looked = book.runs.length
    for (const run of this.#live) {
      const rest = this.#resting.get(run.group)
      if (rest === undefined || !run.executing || run.life.host.stopped !== 'no') {
        this.#late.delete(run)
        continue
      }
      const since = this.#late.get(run) ?? kernel.nowMs
      this.#late.set(run, since)
      if (!rest.byEpoch && kernel.nowMs - since < ENDS_MS) continue
      const how = rest.byEpoch ? 'which was cut for that' : `after ${(kernel.nowMs - since).toFixed(0)} ms`
      const { group, vm, generation, life } = run
      this.#fail(`${life.host.name} runs ${group}/${vm} of generation ${generation}, whose group rests, ${how}`)
    }
  }
}
