/** What people look at, gathered from all peers: the API's `ReadModels`. Each part's pure half has a file of its own. */
import { z } from 'zod'
import type { EpochPolicy } from '../../config/policy.ts'
import type { PeerId } from '../../protocols/core.ts'
import { type Entry, entrySchema } from '../../protocols/decisions/facts.ts'
import { mergeAccounts } from '../../protocols/decisions/merge.ts'
import { committedMsOf, seenEpochSchema } from '../../protocols/epoch/history.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { memberById } from '../../protocols/membership/record.ts'
import type { SharedEvent, SharedEvents } from '../../protocols/overview/events.ts'
import { newestThatFit } from '../../protocols/overview/fitting.ts'
import type { OverviewQuestion } from '../../protocols/overview/messages.ts'
import { type OwnReport, parseReport } from '../../protocols/overview/report.ts'
import { ANSWER_MS, type Heard, type OverviewExchange } from '../../protocols/overview/shell.ts'
import type { DecisionLog } from '../agents/decisions.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { Groups } from '../agents/groups.ts'
import type { StoragePeers } from '../agents/storage-peers.ts'
import type { ClusterEvent, ClusterEventsView } from '../edge/cluster-events-view.ts'
import type { DecisionsWish, ToldDecisions } from '../edge/decisions-view.ts'
import type { GroupGraph } from '../edge/graph-view.ts'
import type { EpochGrid } from '../edge/grid-view.ts'
import type { GroupHistory, HistoryWish } from '../edge/history-view.ts'
import type { Overview } from '../edge/overview-view.ts'
import type { ReadModels } from '../edge/read-models.ts'
import type { PeerStatus } from '../edge/view.ts'
import { DiapauseError } from '../errors.ts'
import type { Clock, EpochHistory } from '../ports.ts'
import { policyOrDefault } from '../planning/policies/choose.ts'
import { graphOf } from './graphs.ts'
import { GridOperations, type GridOperationsDeps } from './grids.ts'
import { pastOf, type ToldHistory, toldHistory } from './history.ts'
import { overviewOf, reportOf } from './overview.ts'

/** Pages of many people, and questions of other peers, cost one look. A guess: nobody sees the difference. */
const FRESH_MS = 1_000
/** How often it is looked whether those that are followed have answered. */
const LOOK_MS = 20

export interface ReadModelDeps extends GridOperationsDeps {
  readonly self: PeerId
  readonly clock: Clock
  readonly membership: { record(): ClusterRecord }
  readonly directory: Pick<GroupDirectory, 'get' | 'all'>
  readonly storagePeers: Pick<StoragePeers, 'about'>
  readonly decisions: Pick<DecisionLog, 'newest' | 'why'>
  readonly groups: Pick<Groups, 'talksOf'>
  readonly history: Pick<EpochHistory, 'of'>
  readonly togetherMs: number
  /** When epochs of groups without a policy of their own are taken. */
  readonly epochs: { readonly policy?: EpochPolicy | undefined; readonly intervalMs: number }
  readonly exchange: Pick<OverviewExchange, 'ask'>
  readonly shared: Pick<SharedEvents, 'recent' | 'subscribe' | 'unheard'>
  /** This peer's own. */
  status(): Promise<PeerStatus>
}

const historySchema = z.object({ epochs: z.array(seenEpochSchema).max(1_000), more: z.boolean() })
const decisionsSchema = z.object({ entries: z.array(entrySchema).max(2_000), left: z.number().int().min(0) })
type ToldEntries = { readonly entries: readonly Entry[]; readonly left: number }

export class ReadModelOperations implements ReadModels {
  readonly clusterEvents: ClusterEventsView
  readonly #deps: ReadModelDeps
  readonly #grids: GridOperations
  readonly #status: () => Promise<PeerStatus>
  readonly #overview: () => Promise<Overview>

  constructor(deps: ReadModelDeps) {
    this.#deps = deps
    this.#grids = new GridOperations(deps)
    this.#status = fresh(deps.clock, () => deps.status())
    this.#overview = fresh(deps.clock, () => this.#gatherOverview())
    this.clusterEvents = {
      recent: () => this.#recentEvents(),
      subscribe: listener => deps.shared.subscribe(event => listener(this.#named(event)))
    }
  }

  /** What another peer asks: from memory. */
  answer(question: OverviewQuestion): unknown {
    if (question.of === 'report') return this.#report()
    if (question.of === 'history') return this.#toldHistory(question.group, question)
    return this.#toldDecisions(question)
  }

  overview(): Promise<Overview> {
    return this.#overview()
  }

  async history(group: string, wish: HistoryWish): Promise<GroupHistory> {
    const { self, wallMs, exchange } = this.#deps
    const record = this.#record(group)
    const own = { by: self, aheadMs: 0, value: this.#toldHistory(group, wish) }
    const parse = (raw: unknown): ToldHistory => historySchema.parse(raw)
    const { heard, silent } = await exchange.ask({ of: 'history', group, ...wish }, this.#others(), parse)
    return { group, by: self, nowMs: wallMs(), ...pastOf(record, [own, ...heard], wish), silent }
  }

  async grid(group: string, epoch: number): Promise<EpochGrid> {
    return this.#grids.grid(this.#record(group), epoch)
  }

  async graph(group: string): Promise<GroupGraph> {
    const { decisions, groups, togetherMs } = this.#deps
    const record = this.#record(group)
    const talks = groups.talksOf(record)
    const stories = record.vms.map(async ({ id: vm }) => {
      const { told } = await decisions.why({ group, vm, agoMs: this.#deps.wallMs(), here: true })
      return [vm, told] as const
    })
    const told = Object.fromEntries(await Promise.all(stories))
    return graphOf({ record, talks: await talks, told, togetherMs, nameOf: peer => this.#nameOf(peer) })
  }

  async decisions(wish: DecisionsWish): Promise<ToldDecisions> {
    const { self, wallMs, exchange, membership } = this.#deps
    const parse = (raw: unknown): ToldEntries => decisionsSchema.parse(raw)
    const { heard, silent } = await exchange.ask({ of: 'decisions', ...wish }, this.#others(), parse)
    const accounts = [{ by: self, aheadMs: 0, value: this.#toldDecisions(wish) }, ...heard]
    const names = Object.fromEntries(membership.record().members.map(({ id, name }) => [id, name]))
    return { by: self, nowMs: wallMs(), names, ...newestOf(accounts, wish.limit), silent }
  }

  async #gatherOverview(): Promise<Overview> {
    const { self, wallMs, exchange, membership, storagePeers } = this.#deps
    const [status, own, { heard, silent }] = await Promise.all([
      this.#status(),
      this.#report(),
      exchange.ask({ of: 'report' }, this.#others(), parseReport)
    ])
    const { members } = membership.record()
    const gives = storagePeers.about(members.flatMap(({ id, role }) => (role === 'storage' ? [id] : [])))
    return overviewOf({
      status,
      nowMs: wallMs(),
      leaving: new Set(members.flatMap(({ id, leaving }) => (leaving ? [id] : []))),
      vmMemoryMiB: new Map(gives.flatMap(({ peer, vmMemoryMiB: MiB }) => (MiB === undefined ? [] : [[peer, MiB]]))),
      heard: [{ by: self, aheadMs: 0, value: own }, ...heard],
      silent,
      policyOf: ({ policy }) => policyOrDefault(policy, this.#deps.epochs),
      committedMs: (group, epoch) => committedMsOf(this.#deps.history.of(group), epoch)
    })
  }

  async #report(): Promise<OwnReport> {
    return reportOf(await this.#status())
  }

  #toldHistory(group: string, wish: HistoryWish): ToldHistory {
    return toldHistory(this.#deps.history.of(group), wish)
  }

  #toldDecisions({ agoMs, limit }: DecisionsWish): ToldEntries {
    const all = this.#deps.decisions.newest(Number.POSITIVE_INFINITY, agoMs)
    const entries = newestThatFit(all, limit)
    return { entries, left: all.length - entries.length }
  }

  /** Peers that are followed for the first time are waited for, as long as for any question. */
  async #recentEvents(): Promise<ClusterEvent[]> {
    const { clock, shared } = this.#deps
    shared.recent()
    const untilMs = clock.now() + ANSWER_MS
    while (shared.unheard > 0 && clock.now() < untilMs) {
      await new Promise<void>(resolve => clock.after(LOOK_MS, resolve))
    }
    return shared.recent().map(event => this.#named(event))
  }

  #named({ id, by, atMs, event }: SharedEvent): ClusterEvent {
    return { id, by, name: this.#nameOf(by), atMs, kind: event.kind, event }
  }

  #nameOf(peer: PeerId): string {
    return memberById(this.#deps.membership.record(), peer)?.name ?? peer
  }

  #others(): PeerId[] {
    const { self, membership } = this.#deps
    return membership.record().members.flatMap(({ id }) => (id === self ? [] : [id]))
  }

  #record(group: string): GroupRecord {
    const record = this.#deps.directory.get(group)
    if (record !== undefined && !record.removed) return record
    throw new DiapauseError('GROUP_UNKNOWN', `There is no group "${group}" in this cluster.`)
  }
}

/** All accounts as one, no further back than each that left something out goes. */
function newestOf(accounts: readonly Heard<ToldEntries>[], limit: number): Pick<ToldDecisions, 'told' | 'left'> {
  const merged = mergeAccounts(accounts.map(({ by, aheadMs, value }) => ({ by, aheadMs, entries: value.entries })))
  const floorMs = Math.max(
    0,
    ...accounts.flatMap(({ aheadMs, value: { entries, left } }) =>
      left > 0 ? [(entries[0]?.atMs ?? 0) - aheadMs] : []
    )
  )
  const whole = merged.filter(({ atMs }) => atMs >= floorMs)
  const told = whole.slice(-limit)
  const left = accounts.reduce((sum, { value }) => sum + value.left, 0)
  return { told, left: left + merged.length - told.length }
}

/** One look at a time, and the same result for whoever asks within FRESH_MS after it. */
function fresh<T>(clock: Clock, look: () => Promise<T>): () => Promise<T> {
  let last: { readonly untilMs: number; readonly result: Promise<T> } | undefined
  return () => {
    if (last !== undefined && clock.now() < last.untilMs) return last.result
    const result = look()
    const looking = { untilMs: Number.POSITIVE_INFINITY, result }
    last = looking
    const ended = (): void => void (last === looking && (last = { untilMs: clock.now() + FRESH_MS, result }))
    result.then(ended, () => void (last === looking && (last = undefined)))
    return result
  }
}
