/** What happens to a simulated cluster while its faults last; then it ends, and the cluster has to heal. */
import { tendEpochs } from './cluster-epochs.ts'
import { endGroup } from './cluster-groups.ts'
import { type ChangingWorld, joinSpare, leave, wishForVotes } from './cluster-members.ts'
import type { SimPeer } from './cluster-peer.ts'
import { tendRests } from './cluster-rest.ts'
import type { Host, Life } from './world-host.ts'
import type { Network } from './world-network.ts'

export interface FaultyWorld extends ChangingWorld {
  readonly network: Network
  readonly hosts: readonly Host[]
  readonly groups: readonly string[]
  peerOf(life: Life | undefined): SimPeer | undefined
  /** Members come and go in this run. */
  readonly members: boolean
  /** Groups are removed in this run. */
  readonly removals: boolean
  /** People hold and drop epochs, and go back to them, in this run. */
  readonly epochs: boolean
  /** People let groups rest, and start them again, in this run. */
  readonly rests: boolean
  /** Makes a group again. */
  make(id: string): void
}

type Fault = (world: FaultyWorld, host: Host) => void

/** Name, how often against the others, what it does. */
const FAULTS: readonly (readonly [string, number, Fault])[] = [
  ['is killed', 4, (_, host) => host.end('killed')],
  ['loses power', 3, (_, host) => host.end('power')],
  ['is stopped in order', 2, (world, host) => void world.peerOf(host.life)?.stop()],
  ['process stands still', 5, (world, host) => pause(world, host, 'process')],
  ['host freezes', 3, (world, host) => pause(world, host, 'all')],
  ['is cut off', 4, isolate],
  ['one link is blocked', 3, blockOne],
  ['network is split', 3, split],
  ['network heals', 6, ({ network }) => network.heal()],
  ['connections are reset', 3, resetLinks],
  ['disk is full', 2, fill],
  ['disk is slow', 2, slowDisk],
  ['disk has a bad place', 2, rot],
  ['VM crashes', 3, crashVm],
  ['wall clock jumps', 1, ({ kernel }, host) => void (host.wallOffsetMs += kernel.between(-1e7, 1e7))],
  ['epoch is asked for', 5, propose],
  ['group is removed', 4, remove],
  ['votes are wished for', 3, members(wishForVotes)],
  ['newcomer is let in', 2, members(joinSpare)],
  ['member is to leave', 3, members(leave)],
  ['weather changes', 4, weather]
]
/** Of the starts of a peer; its service tries again. */
const UNREADABLE = 0.1
const WEIGHT = FAULTS.reduce((sum, [, weight]) => sum + weight, 0)

export class Faults {
  readonly #world: FaultyWorld
  readonly #gapMs: number
  #ended = false

  constructor(world: FaultyWorld) {
    this.#world = world
    this.#gapMs = world.kernel.pick([80, 250, 600])
    for (const host of world.hosts) {
      const { onEnd } = host
      host.disk.unreadable = UNREADABLE
      host.onEnd = (life, how) => {
        onEnd(life, how)
        const { kernel } = world
        const delayMs = 2 + kernel.random() * kernel.random() * 2_500
        kernel.at(
          delayMs,
          () => `${host.name} may start again`,
          () => world.start(host)
        )
      }
    }
    this.#later()
    if (world.epochs) tendEpochs(world, () => this.#ended)
    if (world.rests) tendRests(world, () => this.#ended)
  }

  /**
   * All heals: what was stopped goes on, what was ended has started again or will in a moment. But a lid that is shut stays
   * shut for its time, and sometimes one is shut now: only while all others are well is it sure to be taken over from.
   */
  end(): void {
    this.#ended = true
    const { network, hosts, kernel } = this.#world
    network.loss = 0
    network.slowMs = 0
    network.heal()
    for (const host of hosts) {
      host.disk.full = false
      host.disk.unreadable = 0
      host.disk.slowMs = 0
      if (host.stopped !== 'all') host.continue()
      this.#world.start(host)
    }
    if (kernel.chance(0.2)) pause(this.#world, kernel.pick(hosts), 'all')
  }

  #later(): void {
    const { kernel } = this.#world
    kernel.at(kernel.random() * 2 * this.#gapMs, 'fault', () => {
      if (this.#ended) return
      this.#strike()
      this.#later()
    })
  }

  #strike(): void {
    const { kernel, hosts } = this.#world
    const host = kernel.pick(hosts)
    let dice = kernel.random() * WEIGHT
    for (const [name, weight, fault] of FAULTS) {
      dice -= weight
      if (dice >= 0) continue
      kernel.note(() => `FAULT ${host.name} ${name}`)
      return fault(this.#world, host)
    }
  }
}

/** Asks this peer for it, if it is up. */
function members(change: (world: FaultyWorld, peer: SimPeer) => void): Fault {
  return (world, { life }) => {
    const peer = world.peerOf(life)
    if (world.members && peer?.started === true) change(world, peer)
  }
}

function pause({ kernel }: FaultyWorld, host: Host, what: 'process' | 'all'): void {
  const { life } = host
  host.stop(what)
  // Often a moment as on a busy host, sometimes longer than any lease; a lid is shut for longer than a takeover takes.
  const delayMs = kernel.random() * kernel.pick(what === 'all' ? [30, 3_000, 6_000] : [30, 200, 1_500])
  kernel.at(
    delayMs,
    () => `${host.name} goes on`,
    () => {
      if (host.life === life) host.continue()
    }
  )
}

/** One way or both. */
function isolate({ kernel, network, hosts }: FaultyWorld, host: Host): void {
  const [out, back] = kernel.pick([
    [true, true],
    [true, false],
    [false, true]
  ] as const)
  for (const other of hosts) {
    if (other === host) continue
    if (out) network.block(host.name, other.name)
    if (back) network.block(other.name, host.name)
  }
}

function blockOne({ kernel, network, hosts }: FaultyWorld, host: Host): void {
  const other = kernel.pick(hosts)
  if (other === host) return
  network.block(host.name, other.name)
  if (kernel.chance(0.5)) network.block(other.name, host.name)
}

/** In two; half of the time one host is a bridge, which both sides reach. */
function split({ kernel, network, hosts }: FaultyWorld, bridge: Host): void {
  const bridged = kernel.chance(0.5)
  const left = new Set(hosts.filter(() => kernel.chance(0.5)))
  for (const a of hosts) {
    for (const b of hosts) {
      if (left.has(a) === left.has(b) || (bridged && (a === bridge || b === bridge))) continue
      network.block(a.name, b.name)
    }
  }
}

function resetLinks({ kernel, network, hosts }: FaultyWorld, host: Host): void {
  for (const other of hosts) {
    if (other === host || kernel.chance(0.5)) continue
    network.transportOf(host.name)?.break(other.name, 'reset')
    if (kernel.chance(0.5)) network.transportOf(other.name)?.break(host.name, 'reset')
  }
}

function fill({ kernel }: FaultyWorld, host: Host): void {
  host.disk.full = true
  kernel.at(
    kernel.random() * 800,
    () => `${host.name} disk has room`,
    () => {
      host.disk.full = false
    }
  )
}

function slowDisk({ kernel }: FaultyWorld, host: Host): void {
  host.disk.slowMs = kernel.pick([0, 20, 200])
}

/** Only ever on one host, for no code repairs more; and none where members leave with what they store. */
function rot({ kernel, hosts, members }: FaultyWorld): void {
  const disk = members ? undefined : hosts[0]?.disk
  const streams = [...(disk?.columns.keys() ?? [])]
  if (streams.length > 0) disk?.rotten.add(kernel.pick(streams))
}

function crashVm({ kernel, peerOf }: FaultyWorld, host: Host): void {
  const machines = [...(peerOf(host.life)?.body.machines ?? [])].filter(({ run }) => run?.executing === true)
  if (machines.length > 0) kernel.pick(machines).fail('it has crashed')
}

function propose({ kernel, groups, peerOf }: FaultyWorld, host: Host): void {
  peerOf(host.life)
    ?.epochClock.propose(kernel.pick(groups))
    .catch(() => {})
}

/** It is made again at once, or when it has been forgotten, or when the faults are over. */
function remove({ kernel, groups, peerOf, removals, make }: FaultyWorld, host: Host): void {
  const peer = peerOf(host.life)
  if (!removals || peer?.started !== true) return
  const id = kernel.pick(groups)
  endGroup(peer, id)
    .then(() =>
      kernel.at(
        kernel.random() * kernel.pick([100, 1_000, 5_000]),
        () => `group ${id} may be made again`,
        () => make(id)
      )
    )
    .catch(() => {})
}

function weather({ kernel, network }: FaultyWorld): void {
  network.loss = kernel.pick([0, 0, 0.02, 0.1, 0.3])
  network.slowMs = kernel.pick([0, 0, 5, 40])
}
