/**
 * The story the demo tells: start, work, snapshots, a host dies, everything comes back, the cluster goes on. Each step
 * says what it does, has a deadline, and fails with what it was waiting for. What was seen goes into a record that is
 * whole at any moment, so that a story that fails half-way still gives a report.
 */
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import type { GroupRecord } from '../../protocols/group.ts'
import { DiapauseError, hasCode, messageOf } from '../../node/errors.ts'
import { type BankReport, conservation } from '../guest/console.ts'
import { bankTotal, bankVm, type Guest } from '../guest/build.ts'
import type { Cluster, ClusterPeer } from './cluster.ts'
import { ConsoleWatcher } from './consoles.ts'
import type { KnownEvent } from './events.ts'
import type { Progress } from './progress.ts'
import { eventsOf, type Seen } from './report.ts'
import { list } from './text.ts'

export const GROUP = 'bank'

export interface StoryOptions {
  readonly vms: number
  readonly epochs: number
  readonly memoryMiB: number
}

/** How long a step may take before the story fails; guesses, several times what was seen on two busy cores. */
const LIMIT_MS = {
  connect: 60_000,
  create: 20_000,
  boot: 60_000,
  audit: 20_000,
  epoch: 40_000,
  resume: 30_000,
  pages: 60_000
}

/** Work between two steps: enough for a few thousand transfers. */
const WORK_MS = 700

/** Wall clock with a fraction, as the peers' events have it. */
export const wallMs = (): number => performance.timeOrigin + performance.now()

export class Story {
  readonly #cluster: Cluster
  readonly #guest: Guest
  readonly #options: StoryOptions
  readonly #progress: Progress
  readonly #signal: AbortSignal
  readonly #consoles: ConsoleWatcher
  readonly #vms: readonly string[]
  #record: GroupRecord | undefined
  #hypervisor: string | undefined
  #audit = 0
  #kill: Seen['kill']
  #before: BankReport[] = []
  #after: BankReport[] = []

  constructor(parts: {
    cluster: Cluster
    guest: Guest
    options: StoryOptions
    progress: Progress
    signal: AbortSignal
  }) {
    this.#cluster = parts.cluster
    this.#guest = parts.guest
    this.#options = parts.options
    this.#progress = parts.progress
    this.#signal = parts.signal
    this.#vms = Array.from({ length: parts.options.vms }, (_, i) => `vm${i + 1}`)
    const directories = parts.cluster.peers.map(peer => peer.consoleDir)
    this.#consoles = new ConsoleWatcher(directories, GROUP, wallMs)
  }

  get seen(): Omit<Seen, 'leftovers' | 'error'> {
    return {
      group: GROUP,
      peers: this.#cluster.peers,
      vms: this.#vms,
      hypervisor: this.#hypervisor,
      epochsWanted: this.#options.epochs + 1,
      money: bankTotal({ total: this.#options.vms }),
      events: this.#cluster.events,
      kill: this.#kill,
      before: this.#before,
      after: this.#after,
      outageMs: this.#consoles.longestSilenceMs
    }
  }

  async tell(): Promise<void> {
    await this.#startPeers()
    await this.#createGroup()
    this.#progress.step('auditing the bank before the failure')
    this.#before = await this.#auditBank()
    for (let i = 0; i < this.#options.epochs; i++)
      await this.#takeEpoch(i, `snapshot ${i + 1} of ${this.#options.epochs}`)
    await this.#killHost()
    await this.#comeBack()
    this.#progress.step('auditing the bank after the restore')
    this.#after = await this.#auditBank()
    await this.#takeEpoch(0, 'one more snapshot: the cluster goes on')
  }

  /** Removes the group, so that no peer that stops later looks like one that died. */
  async removeGroup(): Promise<void> {
    const [peer] = this.#cluster.alive
    if (peer === undefined || this.#record === undefined) return
    await peer.client.removeGroup(GROUP)
  }

  async #startPeers(): Promise<void> {
    const { peers } = this.#cluster
    this.#progress.step(`starting ${peers.length} peers`)
    for (const peer of peers) this.#cluster.startPeer(peer)
    await this.#cluster.allConnected(LIMIT_MS.connect, ready => {
      this.#signal.throwIfAborted()
      this.#progress.detail(`${ready} of ${peers.length} see all others`)
    })
    this.#hypervisor = (await peers[0]?.client.status())?.hypervisor
    this.#progress.note(`${peers.length} peers see each other; VMs run in ${this.#hypervisor}`)
  }

  async #createGroup(): Promise<void> {
    const { vms: total, memoryMiB } = this.#options
    this.#progress.step(`placing and booting ${total} VMs of ${memoryMiB} MiB`)
    const vms = this.#vms.map((_, i) => bankVm(this.#guest, { index: i + 1, total, memoryMiB }))
    this.#record = await this.#peer(0).client.createGroup({ id: GROUP, vms })
    this.#progress.note(`placed: ${this.#placement()}`)
    await this.#until('all VMs work and move money over all connections', LIMIT_MS.boot, () => {
      const reports = [...this.#consoles.latest.values()].map(({ latest }) => latest)
      this.#progress.detail(`${reports.length} of ${total} banks open`)
      return reports.length === total && reports.every(report => this.#busy(report)) ? true : undefined
    })
  }

  /** Every connection is up and every other VM's money has come. */
  #busy(report: BankReport): boolean {
    const others = this.#options.vms - 1
    return (
      report.conns === 2 * others && [...report.received.values()].filter(({ count }) => count > 20).length === others
    )
  }

  async #auditBank(): Promise<BankReport[]> {
    const id = ++this.#audit
    const ask = this.#every(1_000, () => this.#type(`audit ${id}`))
    const audits = await this.#until(`audit ${id} of all VMs`, LIMIT_MS.audit, async () => {
      await ask()
      const found = this.#consoles.audits(id)
      return found.length === this.#options.vms ? found : undefined
    })
    const { money, faults } = conservation(audits, bankTotal({ total: this.#options.vms }))
    this.#progress.note(
      faults.length === 0 ? `the VMs hold ${money.toLocaleString('en')} coins, as they should` : list(faults)
    )
    // Silence is counted from here on; and the story must not take a snapshot of a bank at rest.
    await this.#type('reset')
    const go = this.#every(1_000, () => this.#type('go'))
    await this.#until('transfers after the audit', LIMIT_MS.audit, async () => {
      await go()
      const latest = [...this.#consoles.latest.values()].map(each => each.latest)
      return latest.every(report => this.#movedSince(audits, report)) ? true : undefined
    })
    return audits
  }

  #movedSince(audits: readonly BankReport[], report: BankReport): boolean {
    const then = audits.find(audit => audit.vm === report.vm)
    return [...report.received].every(([vm, { count }]) => count > (then?.received.get(vm)?.count ?? 0))
  }

  /** Peer `turn` of those alive proposes: nobody is special. */
  async #takeEpoch(turn: number, what: string): Promise<void> {
    const peer = this.#peer(turn)
    this.#progress.step(`${what}, proposed by ${peer.name}`)
    await this.#work(WORK_MS)
    const result = await this.#until('a committed epoch', LIMIT_MS.epoch, async () => {
      try {
        const taken = await peer.client.takeEpoch(GROUP)
        if (taken.outcome === 'committed') return taken
        this.#progress.note(`epoch ${taken.epoch} was aborted: ${taken.reason ?? 'no reason given'}`)
      } catch (error) {
        if (!hasCode(error, 'EPOCH_OPEN')) throw error
      }
      return undefined
    })
    // The answer may overtake the events, which come on streams of their own.
    const pauses = await this.#until('the events of the epoch', LIMIT_MS.epoch, () => {
      const cuts = this.#events('cut').filter(cut => cut.epoch === result.epoch)
      const told = this.#events('epoch.committed').some(commit => commit.epoch === result.epoch)
      const all = new Set(cuts.map(cut => cut.vm)).size === this.#options.vms
      return told && all ? cuts.map(cut => cut.pauseMs) : undefined
    })
    this.#progress.note(
      `epoch ${result.epoch} is committed; VMs stood still for ${list(pauses.map(each => `${each.toFixed(1)} ms`))}`
    )
  }

  /** Kills the host of the first VM, together with that VM's QEMU, a moment after the last snapshot. */
  async #killHost(): Promise<void> {
    this.#progress.step('letting the bank work on after the last snapshot')
    await this.#work(WORK_MS)
    const record = await this.#refresh()
    const victim = this.#cluster.peers.find(peer => peer.id === record.owners[this.#vms[0] ?? ''])
    if (victim === undefined) throw new DiapauseError('DEMO_OWNER', `nobody runs ${this.#vms[0]}`)
    const vms = this.#vms.filter(vm => record.owners[vm] === victim.id)
    this.#progress.step(`kill -9: ${victim.name} dies, and ${list(vms)} with it`)
    this.#consoles.poll()
    this.#consoles.countSilence()
    this.#kill = { atMs: wallMs(), peer: victim.name, vms }
    await this.#cluster.killPeer(victim)
  }

  async #comeBack(): Promise<void> {
    const later = <Kind extends KnownEvent['kind']>(kind: Kind) =>
      this.#events(kind).filter(event => event.atMs >= (this.#kill?.atMs ?? 0))
    const takeover = await this.#until('the survivors to decide', LIMIT_MS.resume, () => {
      const dead = new Set(
        later('liveness')
          .filter(event => event.liveness === 'dead')
          .map(event => event.by)
      )
      this.#progress.detail(`${dead.size} peers have noticed`)
      return later('takeover.decided').at(-1)
    })
    this.#progress.note(`${takeover.by} got it decided: all back to epoch ${takeover.epoch}`)
    this.#progress.step('resuming the group by post-copy')
    const running = (vms: readonly string[]) => new Set(vms).size === this.#options.vms
    await this.#until('all VMs to run again', LIMIT_MS.resume, () => {
      const generation = Math.max(...later('takeover.decided').map(event => event.generation))
      const resumed = later('vm.resumed').filter(event => event.generation === generation)
      this.#progress.detail(`${resumed.length} of ${this.#options.vms} run`)
      return running(resumed.map(event => event.vm)) ? true : undefined
    })
    await this.#until('all pages of all VMs', LIMIT_MS.pages, () =>
      running(later('vm.complete').map(event => event.vm)) ? true : undefined
    )
    this.#record = await this.#refresh()
    this.#progress.note(`running: ${this.#placement()}`)
    const from = new Map([...this.#consoles.latest].map(([vm, { latest }]) => [vm, latest]))
    await this.#until('all banks to move money again', LIMIT_MS.boot, () =>
      [...this.#consoles.latest.values()].every(
        ({ latest }) => this.#busy(latest) && this.#movedSince([...from.values()], latest)
      )
        ? true
        : undefined
    )
  }

  // -------------------------------------------------------------------------------------------- small things

  #peer(turn: number): ClusterPeer {
    const { alive } = this.#cluster
    const peer = alive[turn % alive.length]
    if (peer === undefined) throw new DiapauseError('DEMO_PEER', 'no peer runs any more')
    return peer
  }

  #events<Kind extends KnownEvent['kind']>(kind: Kind) {
    return eventsOf({ group: GROUP, events: this.#cluster.events }, kind)
  }

  /** The newest record that a peer which lives knows. */
  async #refresh(): Promise<GroupRecord> {
    const known = await Promise.all(this.#cluster.alive.map(peer => peer.client.groups()))
    const records = known.flat().filter(record => record.id === GROUP)
    const newest = records.reduce<GroupRecord | undefined>(
      (a, b) => (a === undefined || b.version > a.version ? b : a),
      undefined
    )
    if (newest === undefined) throw new DiapauseError('DEMO_GROUP', 'no peer knows the group any more')
    this.#record = newest
    return newest
  }

  #placement(): string {
    const name = (id: string | undefined) => this.#cluster.peers.find(peer => peer.id === id)?.name ?? '?'
    return list(this.#vms.map(vm => `${vm} on ${name(this.#record?.owners[vm])}`))
  }

  /** Types a line on every VM's console, wherever it runs. A VM that moves just now is asked again by the caller. */
  async #type(line: string): Promise<void> {
    const record = await this.#refresh()
    await Promise.all(
      this.#vms.map(async vm => {
        const owner = this.#cluster.alive.find(peer => peer.id === record.owners[vm])
        await owner?.client.typeConsole(GROUP, vm, `${line}\n`).catch((error: unknown) => {
          if (!hasCode(error, 'VM_ELSEWHERE')) this.#progress.note(`could not type on ${vm}: ${messageOf(error)}`)
        })
      })
    )
  }

  /** `action`, at most once in `ms`. */
  #every(ms: number, action: () => Promise<void>): () => Promise<void> {
    let due = 0
    return async () => {
      if (performance.now() < due) return
      due = performance.now() + ms
      await action()
    }
  }

  async #work(ms: number): Promise<void> {
    const end = performance.now() + ms
    await this.#until('the bank to work', ms + 1_000, () => (performance.now() >= end ? true : undefined))
  }

  /** Polls consoles and `condition` until it gives something. Neither the deadline nor an interrupt waits for a slow call. */
  async #until<T>(what: string, limitMs: number, condition: () => T | undefined | Promise<T | undefined>): Promise<T> {
    const gate = new AbortController()
    const late = setTimeout(() => {
      gate.abort(new DiapauseError('DEMO_TIMEOUT', `waited ${limitMs / 1000} s in vain for ${what}`))
    }, limitMs)
    const stop = AbortSignal.any([this.#signal, gate.signal])
    const stopped = once(stop, 'abort').then(() => {
      stop.throwIfAborted()
      return undefined
    })
    stopped.catch(() => {}) // it may come between two turns of the loop, which looks at `stop` first
    try {
      for (;;) {
        stop.throwIfAborted()
        this.#cluster.check()
        this.#consoles.poll()
        const result = await Promise.race([condition(), stopped])
        if (result !== undefined) return result
        await sleep(25)
      }
    } finally {
      clearTimeout(late)
    }
  }
}
