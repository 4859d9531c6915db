/**
 * A cluster with a bank in it, as the scenarios use it: start it, let it work, take epochs, kill a peer, wait until all is
 * back, audit. Every wait has a generous limit, and says what it waited for; none of them is a measurement.
 */
import { spawnSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import type { DiskSpec, GroupRecord, VmSpec } from '../../protocols/group.ts'
import { hasCode } from '../../node/errors.ts'
import { Cluster, type ClusterOptions, type ClusterPeer, type Settings } from '../demo/cluster.ts'
import { ConsoleWatcher } from '../demo/consoles.ts'
import type { EventOf, KnownEvent } from '../demo/events.ts'
import { wallMs } from '../demo/story.ts'
import { type BankOptions, bankTotal, bankVm, buildGuest, type Guest } from '../guest/build.ts'
import { type BankReport, conservation } from '../guest/console.ts'

export const GROUP = 'bank'

/** Longest wait for anything. Several times what a busy machine with two cores took. */
const LIMIT_MS = 60_000

export interface BankSetup extends Omit<ClusterOptions, 'detached'> {
  readonly vms: number
  readonly memoryMiB: number
  /** The setting of the group. */
  readonly openFlow?: boolean
  /** Of each VM; the bank uses the first where `load` says so. */
  readonly disks?: readonly DiskSpec[]
  /** What each VM boots from instead of the guest's own files: copies of them. */
  readonly boot?: Guest
  /** The network of a second NIC of each VM, of which the bank makes no use. */
  readonly besides?: string
  /** Of each VM: how many hosts besides its own keep a standby copy. */
  readonly standby?: number
  /** VMs that are cut by streams of all their RAM, also where written pages are known. */
  readonly portable?: readonly string[]
  /** How busy each bank is. */
  readonly load?: Pick<
    BankOptions,
    'intervalUs' | 'burst' | 'mtu' | 'dirtyPagesPerSecond' | 'diskBlocksPerSecond' | 'beatMs'
  >
  /** VM → name of its first owner. Default: vmN on pN. */
  readonly owners?: Readonly<Record<string, string>>
  /** How the group comes to be in a cluster that has none. Default: it is made. */
  readonly begin?: (cluster: Cluster) => Promise<unknown>
  /** Audits that its VMs have had elsewhere: none is answered twice. Default: 0. */
  readonly auditsBefore?: number
}

/** A busy machine must not look like a dead peer, where who is moved where is part of what is tested. */
export const calm: Settings = { detector: { suspicionMinMs: 1_000, suspicionMaxMs: 4_000 } }

export class Bank {
  readonly cluster: Cluster
  readonly vms: readonly string[]
  readonly consoles: ConsoleWatcher
  #audits: number

  private constructor(cluster: Cluster, vms: number, audits: number) {
    this.cluster = cluster
    this.#audits = audits
    this.vms = Array.from({ length: vms }, (_, i) => `vm${i + 1}`)
    this.consoles = new ConsoleWatcher(
      cluster.peers.map(peer => peer.consoleDir),
      GROUP,
      wallMs
    )
  }

  /** Peers p1, p2, … that see each other, and VMs that move money. */
  static async start(setup: BankSetup): Promise<Bank> {
    needPrograms()
    const guest = await buildGuest()
    const { vms: total, memoryMiB, load, openFlow = false, besides, disks, boot } = setup
    const cluster = await Cluster.create(setup)
    const bank = new Bank(cluster, total, setup.auditsBefore ?? 0)
    try {
      for (const peer of cluster.peers) cluster.startPeer(peer)
      await cluster.allConnected(LIMIT_MS)
      const vms = bank.vms
        .map((_, i) => bankVm({ ...guest, ...boot }, { ...load, index: i + 1, total, memoryMiB }))
        .map(vm => ({ ...vm, ...(disks && { disks }), ...(setup.standby !== undefined && { standby: setup.standby }) }))
        .map(vm => (besides === undefined ? vm : withSecondNic(vm, besides)))
        .map(vm => (setup.portable?.includes(vm.id) ? { ...vm, capture: 'portable' as const } : vm))
      const owners = setup.owners ?? Object.fromEntries(bank.vms.map((vm, i) => [vm, `p${i + 1}`]))
      if (setup.begin !== undefined) await setup.begin(cluster)
      else await bank.peer('p1').client.createGroup({ id: GROUP, vms, owners, openFlow })
      await bank.working()
      return bank
    } catch (error) {
      await cluster.stop()
      throw error
    }
  }

  peer(name: string): ClusterPeer {
    const found = this.cluster.peers.find(peer => peer.name === name)
    if (found === undefined) throw new Error(`no peer ${name}`)
    return found
  }

  /** VM → name of the peer that its record gives it to. */
  async owners(): Promise<Record<string, string>> {
    const { owners } = await this.record()
    const name = (id: string) => this.cluster.peers.find(peer => peer.id === id)?.name ?? id
    return Object.fromEntries(Object.entries(owners).map(([vm, id]) => [vm, name(id)]))
  }

  /** The newest record that a living peer knows. */
  async record(): Promise<GroupRecord> {
    const known = await Promise.all(this.cluster.alive.map(peer => peer.client.groups()))
    const [newest] = known.flat().sort((a, b) => b.version - a.version)
    if (newest === undefined) throw new Error('no peer knows the group')
    return newest
  }

  /** VMs that run on a peer now, and the version of the group's record that it knows. */
  async at(peer: ClusterPeer): Promise<{ running: readonly string[]; version: number; generation: number }> {
    const status = await peer.client.status()
    const group = status.groups.find(({ record }) => record.id === GROUP)
    return {
      running: group?.running ?? [],
      version: group?.record.version ?? 0,
      generation: group?.record.generation ?? 0
    }
  }

  /** Every connection of the bank is up, and money moves on each from now on. */
  async working(): Promise<void> {
    const { size: none } = this.consoles.latest
    const before = none === 0 ? undefined : await this.#reports('a first report of every VM')
    const others = this.vms.length - 1
    const received = (report: BankReport | undefined, from: number) => report?.received.get(from)?.count ?? 0
    await this.until('all banks to move money', () => {
      const reports = [...this.consoles.latest.values()].map(({ latest }) => latest)
      const busy = reports.filter(report => {
        const then = before?.find(each => each.vm === report.vm)
        const moved = [...report.received.keys()].filter(vm => received(report, vm) > received(then, vm) + 20)
        return report.conns === 2 * others && moved.length === others
      })
      return busy.length === this.vms.length ? true : undefined
    })
  }

  /** Stops the bank for an audit, lets it go on; what the audit found, and the nonce of each VM. */
  async audit() {
    const id = ++this.#audits
    const ask = this.#everySecond(`audit ${id}`)
    const reports = await this.until(`audit ${id} of all VMs`, async () => {
      await ask()
      const found = this.consoles.audits(id)
      return found.length === this.vms.length ? found : undefined
    })
    const go = this.#everySecond('go')
    await this.until('transfers after the audit', async () => {
      await go()
      const latest = await this.#reports('a report of every VM')
      return latest.every(report => moved(report) > moved(reports.find(each => each.vm === report.vm)))
        ? true
        : undefined
    })
    const { money, gaps, broken, faults } = conservation(reports, bankTotal({ total: this.vms.length }))
    return { money, gaps, broken, faults, nonces: reports.map(report => report.nonce) }
  }

  /** Takes one that commits; its number. One that is aborted fails the test, with the reason. */
  async epoch(by: ClusterPeer): Promise<number> {
    return await this.until('an epoch', async () => {
      try {
        const { epoch, outcome, reason } = await by.client.takeEpoch(GROUP)
        if (outcome === 'aborted') throw new Error(`epoch ${epoch} was aborted: ${reason}`)
        return epoch
      } catch (error) {
        // The register changed at this moment, which the answer says how to deal with.
        if (hasCode(error, 'EPOCH_OPEN')) return undefined
        throw error
      }
    })
  }

  /** Kills peers as hosts die, with their VMs; resolves when all VMs run and are whole in the next generation. */
  async killAndWait(...peers: ClusterPeer[]): Promise<EventOf<'takeover.decided'>> {
    return await this.#lose(async () => {
      await Promise.all(peers.map(peer => this.cluster.killPeer(peer)))
    })
  }

  /** The same where the peer stands still, and its VMs go on without it. */
  async stopAndWait(peer: ClusterPeer): Promise<EventOf<'takeover.decided'>> {
    return await this.#lose(async () => this.cluster.stopPeer(peer))
  }

  /** The same where the peer is told to stop. */
  async endAndWait(peer: ClusterPeer): Promise<EventOf<'takeover.decided'>> {
    return await this.#lose(() => this.cluster.endPeer(peer))
  }

  async #lose(end: () => Promise<void>): Promise<EventOf<'takeover.decided'>> {
    const { generation } = await this.record()
    await end()
    const later = () => this.events('takeover.decided').filter(event => event.generation > generation)
    const decided = await this.until('the survivors to decide', () => later().at(-1))
    await this.#whole(generation)
    await this.working()
    return decided
  }

  /** Takes the group back to a kept epoch; resolves when all VMs run and are whole. */
  async goBack(by: ClusterPeer, epoch: number): Promise<void> {
    const { generation } = await by.client.restore(GROUP, { epoch, force: false })
    await this.#whole(generation - 1)
    await this.working()
  }

  /** Starts the group, which rests; resolves when all VMs run and are whole. */
  async startAgain(by: ClusterPeer): Promise<void> {
    const { generation } = await by.client.startGroup(GROUP, { force: false })
    await this.#whole(generation - 1)
    await this.working()
  }

  /** All VMs run, with all of their RAM, in a generation after that one, and have spoken since: of older times than before. */
  async #whole(generation: number): Promise<void> {
    const later = <Kind extends 'vm.resumed' | 'vm.complete' | 'vm.failed'>(kind: Kind) =>
      this.events(kind).filter(event => !('generation' in event) || Number(event.generation) > generation)
    for (const kind of ['vm.resumed', 'vm.complete'] as const) {
      await this.until(`${kind} of all VMs after generation ${generation}`, () => {
        const failed = later('vm.failed').map(event => `${event.vm}: ${event.reason}`)
        if (failed.length > 0) throw new Error(`VMs failed after generation ${generation}: ${failed.join('; ')}`)
        return new Set(later(kind).map(event => event.vm)).size === this.vms.length ? true : undefined
      })
    }
    const sinceMs = wallMs()
    await this.until('a word of every VM', () => {
      const spoken = [...this.consoles.latest.values()].filter(({ atMs }) => atMs > sinceMs)
      return spoken.length === this.vms.length ? true : undefined
    })
  }

  events<Kind extends KnownEvent['kind']>(kind: Kind): EventOf<Kind>[] {
    return this.cluster.events.flatMap(({ event }) => (event.kind === kind ? [event as EventOf<Kind>] : []))
  }

  /** Polls until `condition` gives something; an unwanted end of a peer ends the wait. */
  async until<T>(what: string, condition: () => T | undefined | Promise<T | undefined>): Promise<T> {
    const deadline = performance.now() + LIMIT_MS
    for (;;) {
      this.cluster.check()
      this.consoles.poll()
      const result = await condition()
      if (result !== undefined) return result
      if (performance.now() > deadline) throw new Error(`waited ${LIMIT_MS / 1000} s in vain for ${what}`)
      await sleep(25)
    }
  }

  #reports(what: string): Promise<BankReport[]> {
    return this.until(what, () => {
      const reports = [...this.consoles.latest.values()].map(({ latest }) => latest)
      return reports.length === this.vms.length ? reports : undefined
    })
  }

  /** Types the line, at most once a second: a VM that was moving or busy did not hear it. */
  #everySecond(line: string): () => Promise<void> {
    let due = 0
    return async () => {
      if (performance.now() < due) return
      due = performance.now() + 1_000
      await this.type(line)
    }
  }

  /** On every VM's console. A VM that moves just now is asked again by the caller. */
  async type(line: string): Promise<void> {
    const owners = await this.owners()
    await Promise.all(
      Object.entries(owners).map(async ([vm, owner]) => {
        await this.peer(owner)
          .client.typeConsole(GROUP, vm, `${line}\n`)
          .catch((error: unknown) => {
            if (!hasCode(error, 'VM_ELSEWHERE')) throw error
          })
      })
    )
  }
}

function withSecondNic({ mac = '', ...vm }: VmSpec, network: string): VmSpec {
  const second = { mac: mac.replace(/^52:54:00/, '52:54:01'), network }
  return { ...vm, nics: [{ mac, network: 'default' }, second] }
}

const moved = (report: BankReport | undefined): number =>
  [...(report?.received.values() ?? [])].reduce((sum, { count }) => sum + count, 0)

/** Without QEMU nothing here can be tested, and a test that is left out looks like one that passed. */
function needPrograms(): void {
  const missing = ['qemu-system-x86_64', 'setpriv'].filter(name => spawnSync(name, ['--version']).error !== undefined)
  if (missing.length > 0)
    throw new Error(`${missing.join(' and ')} missing: run  sudo apt-get install -y qemu-system-x86 util-linux`)
}
