/**
 * A peer of which only the edge over TCP is real, of a cluster that is as large as one should ever be: what the page is given is
 * made up, and of the types of the API.
 */
import { join } from 'node:path'
import type { ClusterEvent } from '../../node/edge/cluster-events-view.ts'
import type { ToldDecisions } from '../../node/edge/decisions-view.ts'
import { EventFeed } from '../../node/edge/events.ts'
import { serveTcp } from '../../node/edge/api-tcp.ts'
import type { DrillView } from '../../node/edge/drill-view.ts'
import type { EpochView } from '../../node/edge/epoch-view.ts'
import type { GroupGraph } from '../../node/edge/graph-view.ts'
import type { ColumnState, EpochGrid } from '../../node/edge/grid-view.ts'
import type { EpochPast, GroupHistory, HistoryWish } from '../../node/edge/history-view.ts'
import type { Overview, OverviewMember, OverviewVm } from '../../node/edge/overview-view.ts'
import type { ReadModels } from '../../node/edge/read-models.ts'
import type { RedundancyView } from '../../node/edge/redundancy-view.ts'
import type { RestView } from '../../node/edge/rest-view.ts'
import { createStatic } from '../../node/edge/static.ts'
import type { PeerView } from '../../node/edge/view.ts'
import type { Log } from '../../node/ports.ts'

/** Good for all, and for looking only. */
export const TOKEN = 'diapause_stub'
export const VIEW_TOKEN = 'diapause_stub_view'

const dashboard = join(import.meta.dirname, '../../.build/dashboard')
const quiet: Log = { debug() {}, info() {}, warn() {}, error() {} }

export interface StubSize {
  readonly members: number
  readonly groups: number
  readonly vmsOfGroup: number
  readonly epochs: number
  /** The first group rests. */
  readonly resting?: boolean
}

/** What it does when it is asked to; what is not here it cannot. */
export interface StubActs {
  readonly restore?: EpochView['restore']
  readonly drill?: DrillView['run']
  readonly verify?: RedundancyView['verify']
  readonly stop?: RestView['stop']
  readonly start?: RestView['start']
}

export interface Stub {
  readonly url: string
  /** It happens now, at the first member. */
  emit(kind: string, fields?: Readonly<Record<string, unknown>>): void
  /** The member dies: its VMs are lost, and the page is told. */
  kill(member: number): void
  close(): Promise<void>
}

const memberId = (i: number): string => `12D3KooW${String(i + 1).padStart(4, '0')}`
const memberName = (i: number): string => `oak${i + 1}`
const groupId = (i: number): string => `group${i + 1}`
const vmsOf = (group: number, { vmsOfGroup }: StubSize): string[] =>
  Array.from({ length: vmsOfGroup }, (_, i) => `vm${group * vmsOfGroup + i + 1}`)

const rests = (group: number, { resting = false }: StubSize): boolean => resting && group === 0

export async function openStub(size: StubSize, acts: StubActs = {}): Promise<Stub> {
  const dead = new Set<number>()
  const events = new EventFeed(() => Date.now())
  const listeners = new Set<(event: ClusterEvent) => void>()
  const kept: ClusterEvent[] = []
  const emit = (kind: string, fields: Readonly<Record<string, unknown>> = {}): void => {
    const atMs = Date.now()
    const named = { id: `${memberId(0)}/run/${kept.length + 1}`, by: memberId(0), name: memberName(0) }
    const event = { ...named, atMs, kind, event: { ...fields, atMs, kind } }
    kept.push(event)
    for (const listener of listeners) listener(event)
  }
  const reads: ReadModels = {
    overview: async () => overviewOf(size, dead),
    history: async (group, wish) => historyOf(group, wish, size),
    grid: async (group, epoch) => gridOf(group, epoch, size, dead),
    graph: async group => graphOf(group, size),
    decisions: async () => decisionsOf(size),
    clusterEvents: {
      recent: async () => kept,
      subscribe: listener => {
        listeners.add(listener)
        return () => listeners.delete(listener)
      }
    }
  }
  const roles: Readonly<Record<string, string>> = { [TOKEN]: 'admin', [VIEW_TOKEN]: 'view' }
  const holderOf = (token: string) => (roles[token] === undefined ? undefined : { name: 'stub', role: roles[token] })
  const epochs = { list: async (group: string) => keptOf(group, size), restore: acts.restore }
  const acting = {
    drills: { run: acts.drill },
    redundancy: { verify: acts.verify },
    rest: { stop: acts.stop, start: acts.start }
  }
  const plans = { plan: async () => [] }
  const shown = { events, reads, tokens: { holderOf }, epochs, plans, groups: () => [] }
  const view = { ...shown, ...acting } as unknown as PeerView
  const files = createStatic(dashboard)
  const server = await serveTcp({ view, log: quiet, host: '127.0.0.1', port: 0, isName: () => false, files })
  return {
    url: `http://127.0.0.1:${server.address.port}`,
    emit,
    kill: member => {
      dead.add(member)
      emit('liveness', { peer: memberId(member), liveness: 'dead', why: 'nobody heard of it' })
    },
    close: () => server.close()
  }
}

function overviewOf(size: StubSize, dead: ReadonlySet<number>): Overview {
  const vms = Array.from({ length: size.groups }, (_, group) => group).flatMap(group =>
    vmsOf(group, size).map((vm, i): OverviewVm => {
      const owner = (group + i) % size.members
      return {
        group: groupId(group),
        vm,
        owner: memberId(owner),
        state: rests(group, size) ? 'resting' : dead.has(owner) ? 'lost' : 'running',
        memoryMiB: 2_048,
        cpus: 2,
        capture: 'dirty',
        leaseRemainingMs: 900,
        objective: { backMs: 10_000, lossMs: 60_000 },
        outlook: {
          backMs: 2_400 + 10 * i,
          parts: { detectMs: 900, decideMs: 400, runsMs: 1_100 + 10 * i },
          bySettings: [],
          lossMs: 1_000 * (i + 3),
          missed: i === 7 ? ['lossMs'] : []
        }
      }
    })
  )
  return {
    cluster: 'forest',
    by: memberId(0),
    nowMs: Date.now(),
    code: { k: 3, m: 2, storage: size.members, tolerates: 2, domains: [] },
    members: Array.from({ length: size.members }, (_, i) => memberOf(i, dead.has(i), vms)),
    groups: Array.from({ length: size.groups }, (_, group) => ({
      id: groupId(group),
      generation: 3,
      epoch: size.epochs,
      committedMs: Date.now() - 4_000,
      open: null,
      kept: 9,
      outputCommit: group % 2 === 0,
      openFlow: false,
      ...(rests(group, size) && { resting: true as const }),
      drills: { last: { epoch: size.epochs - 7, by: memberId(1), atMs: Date.now() - 3_600_000, tookMs: 4_100 } }
    })),
    vms
  }
}

function memberOf(i: number, isDead: boolean, vms: readonly OverviewVm[]): OverviewMember {
  const mine = vms.filter(({ owner }) => owner === memberId(i))
  return {
    id: memberId(i),
    name: memberName(i),
    address: `/ip4/10.0.0.${i + 1}/tcp/7400`,
    role: 'storage',
    votes: i < 5,
    self: i === 0,
    leaving: false,
    liveness: isDead ? 'dead' : 'alive',
    connected: !isDead,
    labels: { rack: `r${i % 3}` },
    freeBytes: 200e9,
    vmMemoryMiB: 65_536,
    usedMemoryMiB: mine.reduce((sum, { memoryMiB }) => sum + memoryMiB, 0),
    ...(isDead && { silent: 'not connected' }),
    report: isDead
      ? null
      : {
          version: '0.1.0',
          uptimeMs: 86_400_000,
          aheadMs: 0,
          hypervisor: 'QEMU 10.0, kvm',
          capture: 'dirty',
          store: { streams: 4_000, manifests: 900, bytes: 80e9 },
          redundancy: {
            exposed: 0,
            tolerates: null,
            repairedColumns: 12,
            repairedBytes: 3e9,
            due: 0,
            damaged: 0
          },
          standbys: []
        }
  }
}

/** Every fortieth is aborted; pauses and sizes go up and down, always the same way. */
function pastOf(epoch: number, group: number, size: StubSize): EpochPast {
  const isKept = epoch > size.epochs - 8 || epoch % 100 === 0
  const isAborted = epoch % 40 === 7
  return {
    generation: 3,
    epoch,
    outcome: isAborted ? 'aborted' : 'committed',
    ...(isAborted && { why: 'a member did not store its columns in time' }),
    cause: { policy: 'interval', why: 'every 5 s' },
    atMs: Date.now() - 5_000 * (size.epochs - epoch),
    tookMs: 700 + (epoch % 13) * 40,
    skewMs: 1 + (epoch % 5),
    kept: isKept && !isAborted,
    committed: epoch === size.epochs,
    holds: epoch % 100 === 0 ? ['release'] : [],
    vms: vmsOf(group, size).map((vm, i) => ({
      vm,
      pauseMs: 8 + ((epoch * (i + 3)) % 17),
      changedBytes: 4e6 + ((epoch * (i + 1)) % 29) * 1e6,
      storedBytes: 3e6 + ((epoch * (i + 1)) % 29) * 8e5,
      inFlight: epoch % 3
    }))
  }
}

function historyOf(group: string, { before, limit }: HistoryWish, size: StubSize): GroupHistory {
  const last = before === undefined ? size.epochs : before.epoch - 1
  const first = Math.max(1, last - limit + 1)
  const numbers = Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i)
  const index = Number(group.replace(/\D/g, '')) - 1
  return {
    group,
    by: memberId(0),
    nowMs: Date.now(),
    epochs: numbers.map(epoch => pastOf(epoch, index, size)),
    more: first > 1,
    silent: []
  }
}

function keptOf(group: string, size: StubSize) {
  const { epochs } = historyOf(group, { limit: 500 }, size)
  const kept = epochs.filter(each => each.kept)
  return {
    group,
    policy: { keepLast: 8, hourly: 0, daily: 7, weekly: 4 },
    own: true,
    room: 64,
    epochs: kept.map(({ epoch, generation, committed, holds, atMs = 0 }) => {
      return { epoch, generation, committed, wallMs: atMs, bytesStored: 9e8, holds, readers: 0 }
    })
  }
}

function gridOf(group: string, epoch: number, size: StubSize, dead: ReadonlySet<number>): EpochGrid {
  const stateOf = (holder: number): ColumnState => (dead.has(holder) ? 'repairing' : 'there')
  const index = Number(group.replace(/\D/g, '')) - 1
  return {
    group,
    epoch,
    generation: 3,
    lookedMs: Date.now(),
    members: Array.from({ length: size.members }, (_, i) => {
      return { id: memberId(i), name: memberName(i), standing: dead.has(i) ? 'gone' : 'up' }
    }),
    images: vmsOf(index, size).map((vm, i) => ({
      vm,
      tolerates: dead.size === 0 ? 2 : 1,
      streams: Array.from({ length: 4 }, (_, stream) => ({
        stream: `${group}/${vm}/3/${epoch - 3 + stream}`,
        k: 3,
        m: 2,
        grids: 6 + stream,
        columns: Array.from({ length: 5 }, (_, column) => {
          const holder = (i + stream + column) % size.members
          const target = (holder + 5) % size.members
          const state = stateOf(holder)
          return {
            column,
            state,
            planned: memberId(holder),
            places: [memberId(holder)],
            ...(state === 'repairing' && { target: memberId(target), done: 2 })
          }
        })
      }))
    })),
    unreadable: []
  }
}

function graphOf(group: string, size: StubSize): GroupGraph {
  const index = Number(group.replace(/\D/g, '')) - 1
  const vms = vmsOf(index, size)
  const talk = { network: 'default', sent: 1_200, sentBytes: 4e6, answers: 900, answerMs: 2 }
  const starts = vms.map((vm, i) => {
    const on = memberName((index + i) % size.members)
    return { vm, on, readyMs: 900 + 40 * i, atMs: i < 4 ? 1_020 : 900 + 40 * i, without: [] }
  })
  const waits = [0, 1, 2].map(i => ({ vm: vms[i] ?? '', waitsFor: vms[i + 1] ?? '', ...talk }))
  return {
    group,
    epoch: size.epochs,
    vms: vms.map((vm, i) => {
      const member = (index + i) % size.members
      return { vm, host: memberId(member), hostName: memberName(member), told: true }
    }),
    edges: waits.flatMap(({ vm, waitsFor }) => [
      { from: vm, to: waitsFor, ...talk, waits: true },
      { from: waitsFor, to: vm, ...talk, answers: 0, waits: false }
    ]),
    together: [
      {
        starts: starts.slice(0, 4),
        waits: waits.map(({ vm, waitsFor }) => ({ vm, waitsFor, network: 'default', answers: 900, answerMs: 2 }))
      },
      ...starts.slice(4).map(start => ({ starts: [start], waits: [] }))
    ]
  }
}

function decisionsOf(size: StubSize): ToldDecisions {
  const nowMs = Date.now()
  const told = Array.from({ length: 400 }, (_, i) => {
    const atMs = nowMs - 60_000 * (400 - i)
    const by = memberId(i % size.members)
    const why = 'QEMU ended with exit code 1'
    const fact = { kind: 'vm-failed' as const, group: groupId(i % size.groups), generation: 3, vm: `vm${i + 1}`, why }
    return { by, seq: i + 1, atMs, lastAtMs: atMs, times: 1, fact }
  })
  const names = Object.fromEntries(Array.from({ length: size.members }, (_, i) => [memberId(i), memberName(i)]))
  return { by: memberId(0), nowMs, names, told, left: 0, silent: [] }
}
