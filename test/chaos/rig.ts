/**
 * What a scenario breaks: hosts with disks of their own, a real peer on each, a bank in real VMs that beats to the outside.
 * The rig is each host's init, too: a peer that ended is started again, unless its host is down.
 */
import { readFileSync, statSync } from 'node:fs'
import { mkdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { messageOf } from '../../node/errors.ts'
import type { ClusterPeer, Settings } from '../demo/cluster.ts'
import type { SeenEvent } from '../demo/events.ts'
import { killAll } from '../demo/processes.ts'
import { type Host, Hosts } from '../hosts/hosts.ts'
import { Bank, GROUP } from '../scenarios/bank.ts'
import { makeDisks, removeDisks } from './disks.ts'
import { lastCode } from './ends.ts'
import type { Disk, Fault, Home } from './fault.ts'
import { BEAT_MS, Lan, UPLINK } from './lan.ts'
import { RigTarget } from './target.ts'

const VMS = 2
/** Enough for the guest. */
const MEMORY_MIB = 96
/** Each VM knows what it wrote to its disk: at the first read after a restore, and at all others, the two are of one moment or it tells. */
const DISK_MIB = 8
const DISK_BLOCKS_PER_SECOND = 40

/**
 * Often and small, so that minutes show what else takes days: epochs, repair of columns whose host is dead for some seconds,
 * reading again of all that is stored.
 */
const SETTINGS: Settings = {
  epochs: { intervalMs: 4_000, retention: { keepLast: 2, hourly: 0, daily: 0, weekly: 0 } },
  repair: { afterMs: 5_000, checkEveryMs: 1_000, megabytesPerSecond: 40 },
  scrub: { periodMs: 10_000 },
  switch: { uplink: UPLINK }
}

export interface RigOptions {
  readonly hosts: number
  /** All that may come. */
  readonly faults: readonly Fault[]
  /** Between two epochs; without, as often as `SETTINGS` says. */
  readonly epochMs?: number
  readonly tell: {
    event(seen: SeenEvent): void
    /** What became of a peer's process. */
    peer(name: string, text: string): void
    /** As `Target` has it. */
    unwell?(name: string, what: string): void
    /** `asked`: its init had told it to stop, or had killed it. `code`: of the error that it ended with. */
    ended?(end: { name: string; how: string; code: string | undefined; asked: boolean }): void
  }
}

export class Rig {
  readonly hosts: Hosts
  readonly lan: Lan
  readonly bank: Bank
  readonly targets: readonly RigTarget[]
  readonly #disks: readonly Disk[]

  private constructor(parts: {
    hosts: Hosts
    lan: Lan
    bank: Bank
    targets: readonly RigTarget[]
    disks: readonly Disk[]
  }) {
    this.hosts = parts.hosts
    this.lan = parts.lan
    this.bank = parts.bank
    this.targets = parts.targets
    this.#disks = parts.disks
  }

  /** Resolves when the bank works and an epoch of it is committed. */
  static async start({ hosts: count, faults, epochMs, tell }: RigOptions): Promise<Rig> {
    const hosts = await Hosts.make(count)
    const parts: { disks?: Disk[]; lan?: Lan } = {}
    try {
      const names = hosts.all.map((_, i) => `p${i + 1}`)
      parts.disks = await makeDisks(join(hosts.dir, 'disks'), names)
      const homes = await Promise.all(names.map((name, i) => homeOf(hosts.dir, name, parts.disks?.[i] as Disk)))
      const environments = new Map(
        await Promise.all(homes.map(async home => [home.name, await prepared(home, faults)] as const))
      )
      parts.lan = await Lan.make(hosts)
      const targets: RigTarget[] = []
      // Peer → where its log of this life begins.
      const began = new Map<string, number>()
      const bank = await Bank.start({
        peers: count,
        hosts,
        vms: VMS,
        memoryMiB: MEMORY_MIB,
        besides: 'uplink',
        disks: [{ sizeMiB: DISK_MIB }],
        load: { beatMs: BEAT_MS, diskBlocksPerSecond: DISK_BLOCKS_PER_SECOND },
        settings:
          epochMs === undefined ? SETTINGS : { ...SETTINGS, epochs: { ...SETTINGS.epochs, intervalMs: epochMs } },
        environment: name => environments.get(name) ?? {},
        onEvent: tell.event,
        onEnd(peer, how) {
          const target = targets.find(({ name }) => name === peer.name)
          const code = lastCode(readFileSync(peer.logFile).subarray(began.get(peer.name)).toString())
          tell.peer(peer.name, `its peer ended: ${how}${code === undefined ? '' : ` [${code}]`}`)
          tell.ended?.({ name: peer.name, how, code, asked: target?.isEnded === true })
          target?.startSoon()
        }
      })
      for (const [i, home] of homes.entries()) {
        const [peer, host] = [bank.cluster.peers[i] as ClusterPeer, hosts.all[i] as Host]
        const start = (program: string | undefined) => {
          tell.peer(peer.name, `its peer is started${program === undefined ? '' : ', of the next version'}`)
          began.set(peer.name, statSync(peer.logFile).size)
          bank.cluster.startPeer(peer, program)
        }
        const isUp = () => bank.cluster.alive.includes(peer)
        targets.push(
          new RigTarget({
            home,
            peer,
            host,
            hosts,
            targets,
            start,
            isUp,
            unwell: what => tell.unwell?.(peer.name, what)
          })
        )
      }
      const rig = new Rig({ hosts, lan: parts.lan, bank, targets, disks: parts.disks })
      await bank.until('a first epoch', async () => (await bank.record()).committed ?? undefined)
      return rig
    } catch (error) {
      await parts.lan?.stop().catch(() => {}) // the first error is the one to hear of
      await removeAll(hosts, parts.disks ?? []).catch(() => {})
      throw error
    }
  }

  /** Ends everything; what was left behind or passed unseen. */
  async stop(): Promise<string[]> {
    for (const target of this.targets) target.retire()
    const [peer] = this.bank.cluster.alive
    await peer?.client.removeGroup(GROUP).catch(() => {}) // a cluster that is not well stops without
    const faults = await this.bank.cluster.stop()
    const lost = await this.lan.stop().catch((error: unknown) => messageOf(error))
    if (lost !== 0) faults.push(`the observer of the VMs missed ${lost} beats`)
    return [...faults, ...(await removeAll(this.hosts, this.#disks))]
  }
}

async function removeAll(hosts: Hosts, disks: readonly Disk[]): Promise<string[]> {
  for (const host of hosts.all) killAll(hosts.running(host).map(({ pid }) => pid))
  const left = await removeDisks(join(hosts.dir, 'disks'), disks)
  return [...left, ...(await hosts.remove())]
}

/** The cluster's folder for the peer with its disk in it: as a link, so that the folder can be removed as any other. */
async function homeOf(dir: string, name: string, disk: Disk): Promise<Home> {
  const folder = join(dir, 'cluster', name)
  const scratchDir = join(dir, 'scratch', name)
  await mkdir(folder, { recursive: true })
  await mkdir(scratchDir, { recursive: true })
  const dataDir = join(folder, 'data')
  await symlink(disk.mounted, dataDir)
  return { name, dataDir, disk, scratchDir }
}

async function prepared(home: Home, faults: readonly Fault[]): Promise<NodeJS.ProcessEnv> {
  const environments: NodeJS.ProcessEnv[] = []
  for (const { prepare } of faults) if (prepare !== undefined) environments.push(await prepare(home))
  // Libraries of two faults are both to be loaded.
  const preload = environments.flatMap(({ LD_PRELOAD }) => (LD_PRELOAD === undefined ? [] : [LD_PRELOAD])).join(' ')
  return Object.assign({}, ...environments, preload === '' ? {} : { LD_PRELOAD: preload }) as NodeJS.ProcessEnv
}
