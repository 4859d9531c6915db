/** Two peers' switches over a network in memory, and fake VMs at their NICs. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Clock, NicPort } from '../../node/ports.ts'
import { createSwitch, type SwitchOptions, type VirtualSwitch } from '../../node/switch/switch.ts'
import { nicPathOf } from '../../protocols/group.ts'
import { clock as realClock, memoryLog } from './real-clock.ts'
import { announcedTo, FakeVm, heard, MemoryNetwork, recordOf } from './switch-support.ts'

/** VM → peer: two on one peer, one on another. */
export const OWNERS = { a: 'p1', b: 'p1', c: 'p2' }

/** A VM and its port. */
export interface Guest {
  readonly nic: NicPort
  readonly vm: FakeVm
  /** The VM's end of each of its NICs; `vm` is the first. */
  readonly vms: readonly FakeVm[]
}

export class SwitchWorld {
  readonly directory: string
  readonly network = new MemoryNetwork()
  /** Real unless a test stops it. */
  nowMs: () => number = realClock.now
  /** The lease, as the switches see it. */
  mayAct: (peer: string, generation: number) => boolean = () => true
  readonly clock: Clock = { ...realClock, now: () => this.nowMs() }
  readonly #switches = new Map<string, VirtualSwitch>()
  readonly #cleanups: (() => unknown)[] = []

  private constructor(directory: string, options: Partial<SwitchOptions>) {
    this.directory = directory
    for (const self of ['p1', 'p2']) this.addSwitch(self, options)
  }

  static async open(options: Partial<SwitchOptions> = {}): Promise<SwitchWorld> {
    return new SwitchWorld(await mkdtemp(join(tmpdir(), 'diapause-switch-')), options)
  }

  addSwitch(self: string, options: Partial<SwitchOptions> = {}): VirtualSwitch {
    const mayAct = (_: string, generation: number): boolean => this.mayAct(self, generation)
    const shared = { self, transport: this.network.transport(self), clock: this.clock, log: memoryLog(), mayAct }
    const made = createSwitch({ ...shared, ...options })
    this.#switches.set(self, made)
    return made
  }

  /** In the place of the peer's own. */
  use(peer: string, made: VirtualSwitch): void {
    this.#switches.set(peer, made)
  }

  at(peer: string): VirtualSwitch {
    return this.#switches.get(peer) as VirtualSwitch
  }

  pathOf(vm: string): string {
    return join(this.directory, `${vm}.nic`)
  }

  async attach(
    vm: string,
    owners: Record<string, string>,
    generation = 1,
    epoch = 0,
    group = 'bank'
  ): Promise<NicPort> {
    const own = this.at(owners[vm] as string)
    const nic = await own.attach({ group, vm, generation, epoch, nicPath: this.pathOf(vm) })
    this.atEnd(() => nic.detach())
    return nic
  }

  async connect(vm: string, nic = 0): Promise<FakeVm> {
    const fake = await FakeVm.connect(vm, nicPathOf(this.pathOf(vm), nic))
    this.atEnd(() => fake.close())
    return fake
  }

  /** The relay of the uplink of `peer`, and what it has got. */
  async outside(peer: string) {
    const path = join(this.directory, `${peer}.uplink`)
    await this.at(peer).openUplink(path)
    this.atEnd(() => this.at(peer).closeUplink())
    const relay = await FakeVm.connect('outside', path)
    this.atEnd(() => relay.close())
    return { relay, ids: () => heard(relay), announced: () => announcedTo(relay) }
  }

  /** Every switch knows of them. */
  setGroup(owners: Record<string, string>, options: Parameters<typeof recordOf>[2] = {}, generation = 1): void {
    for (const each of this.#switches.values()) each.setGroup(recordOf(owners, generation, options))
  }

  /** Everybody attached, connected and released. */
  async group<Vm extends string>(
    owners: Record<Vm, string>,
    options: Parameters<typeof recordOf>[2] = {}
  ): Promise<Record<Vm, Guest>> {
    this.setGroup(owners, options)
    const made = {} as Record<Vm, Guest>
    for (const id of Object.keys(owners) as Vm[]) {
      const nic = await this.attach(id, owners, 1, 0, options.group)
      const cards = options.nics?.[id]?.length ?? 1
      const vms = await Promise.all(Array.from({ length: cards }, (_, card) => this.connect(id, card)))
      made[id] = { nic, vm: vms[0] as FakeVm, vms }
      await nic.release()
    }
    return made
  }

  atEnd(cleanup: () => unknown): void {
    this.#cleanups.push(cleanup)
  }

  async close(): Promise<void> {
    for (const cleanup of this.#cleanups.splice(0).reverse()) await cleanup()
    await rm(this.directory, { recursive: true })
  }
}
