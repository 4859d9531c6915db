/**
 * The standby copies of this host: which there are to be is planned (`planning/standby.ts`), each follows its group's committed
 * epochs, and a VM that is to run here takes its copy where that is of the epoch. They are the first to go where memory is short.
 */
import { isDeepStrictEqual } from 'node:util'
import { type GroupRecord, onBridge, nicsOf, type VmSpec } from '../../protocols/group.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { StandbyStatus } from '../../protocols/overview/standby-status.ts'
import { asksForStandby, standbysAt } from '../planning/standby.ts'
import type { Clock, FailureDetector, Log } from '../ports.ts'
import type { GroupDirectory } from './directory.ts'
import type { Report, StandbySource } from './host-parts.ts'
import { restoreFacts, type RestoreFactsDeps } from './restore-facts.ts'
import { StandbyCopy, type StandbyCopyDeps, type StandbyParts } from './standby-copy.ts'

/** A copy that is being brought to the epoch is waited for so long; a restore from shards takes longer. A guess. */
const WAIT_MS = 250
/** How often memory is looked at. A guess. */
const LOOK_MS = 1_000
/** After memory was short no copy is begun for so long, and after one could not be made none of its VM. A guess. */
const PAUSE_MS = 60_000

export interface StandbySettings {
  /** RAM of all copies at most; 0: none. */
  readonly memoryMiB: number
  /** Copies are given up while the host has less memory left. */
  readonly keepFreeMiB: number
}

export interface StandbysDeps extends RestoreFactsDeps {
  readonly self: PeerId
  readonly copy: StandbyCopyDeps
  readonly settings: StandbySettings
  /** Memory that this host could give to somebody now. */
  readonly availableMiB: () => number
  readonly directory: GroupDirectory
  readonly detector: FailureDetector
  readonly clock: Clock
  readonly log: Log
  readonly report: Report
}

export class Standbys implements StandbySource {
  readonly #deps: StandbysDeps
  /** By group and VM. */
  readonly #copies = new Map<string, StandbyCopy>()
  /** Those that are to be here and are not: why. None is begun before `untilMs`. */
  readonly #missing = new Map<string, { readonly status: StandbyStatus; readonly untilMs: number }>()
  #made = 0
  #pausedUntilMs = 0
  #cancelLook: () => void = () => {}
  #stopped = false
  /** Ends under way. */
  #ending: Promise<unknown> = Promise.resolve()

  constructor(deps: StandbysDeps) {
    this.#deps = deps
    deps.directory.onRecord(record => this.#consider(record))
    deps.directory.onForgotten(id => this.#keepOnly(id, new Set(), 'its group is no more'))
    deps.detector.onChange(() => this.considerAll())
    this.#look()
  }

  /** Members or hosts have changed. */
  considerAll(): void {
    for (const record of this.#deps.directory.all()) this.#consider(record)
  }

  async take({ id, committed }: GroupRecord, spec: VmSpec): Promise<StandbyParts | string | undefined> {
    if (!asksForStandby(spec)) return undefined
    const key = keyOf(id, spec.id)
    const copy = this.#copies.get(key)
    if (copy === undefined || committed === null) return this.#missing.get(key)?.status.why ?? 'there is no copy here'
    const taken = await copy.take(committed.images[spec.id] ?? '', WAIT_MS)
    if (typeof taken !== 'string' && this.#copies.get(key) === copy) this.#copies.delete(key)
    return taken
  }

  get status(): readonly StandbyStatus[] {
    const here = [...this.#copies.values()].map(({ group, spec, status }) => {
      return { group, vm: spec.id, memoryMiB: spec.memoryMiB, ...status }
    })
    return [...here, ...[...this.#missing.values()].map(({ status }) => status)]
  }

  /** Gives up copies, the largest first, until `bytes` of memory are free; resolves when they are gone. */
  async makeRoom(bytes: number): Promise<void> {
    const wantedMiB = Math.ceil(bytes / 1_048_576)
    if (this.#copies.size > 0) this.#pausedUntilMs = this.#deps.clock.now() + PAUSE_MS
    let freedMiB = 0
    for (const copy of this.#largestFirst()) {
      if (freedMiB >= wantedMiB) break
      freedMiB += copy.spec.memoryMiB
      this.#giveUp(copy, 'a VM that runs here needs its memory')
    }
    await this.#ending
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#cancelLook()
    for (const copy of this.#copies.values()) this.#giveUp(copy, 'this peer stops')
    await this.#ending
  }

  #consider(record: GroupRecord): void {
    if (this.#stopped) return
    const here = record.vms.some(asksForStandby)
      ? standbysAt(this.#deps.self, record, restoreFacts(this.#deps, record))
      : []
    this.#keepOnly(record.id, new Set(here.map(({ id }) => id)), 'another host is to keep it, or none')
    const { committed, generation } = record
    if (committed === null) return
    for (const spec of here) {
      const key = keyOf(record.id, spec.id)
      let copy = this.#copies.get(key)
      if (copy !== undefined && !isDeepStrictEqual(copy.spec, spec)) {
        this.#giveUp(copy, 'the VM is another one now')
        copy = undefined
      }
      if (copy !== undefined) copy.follow(committed)
      // Not before its VM has made an epoch: until then the restore needs the host.
      else if (committed.generation === generation) this.#begin(record, spec)
    }
  }

  #begin(record: GroupRecord, spec: VmSpec): void {
    const { committed } = record
    const key = keyOf(record.id, spec.id)
    const { clock } = this.#deps
    if (clock.now() < (this.#missing.get(key)?.untilMs ?? 0)) return
    const why = this.#whyNot(record, spec)
    this.#missing.delete(key)
    if (why !== undefined || committed === null) return this.#miss(record.id, spec, why, 0)
    const of = { group: record.id, spec, committed, number: ++this.#made }
    const copy = new StandbyCopy(of, this.#deps.copy, reason => {
      this.#tell('standby.failed', copy, reason)
      if (this.#copies.get(key) !== copy) return
      this.#copies.delete(key)
      this.#miss(record.id, spec, reason, clock.now() + PAUSE_MS) // it begins again with a later epoch
    })
    this.#copies.set(key, copy)
    this.#deps.log.info({ group: record.id, vm: spec.id, epoch: committed.epoch }, 'keeping a standby copy')
  }

  #miss(group: string, { id: vm, memoryMiB }: VmSpec, why: string | undefined, untilMs: number): void {
    this.#missing.set(keyOf(group, vm), { status: { group, vm, memoryMiB, state: 'missing', why }, untilMs })
  }

  #whyNot(record: GroupRecord, spec: VmSpec): string | undefined {
    const { hypervisor, network } = this.#deps.copy.vm
    const { memoryMiB, keepFreeMiB } = this.#deps.settings
    if (hypervisor.capture !== 'dirty' || spec.capture === 'portable') {
      return `RAM of VMs is no file here: ${hypervisor.captureWhy ?? 'its specification says so (capture = "portable")'}`
    }
    if (network.reserve === undefined || nicsOf(spec).some(nic => onBridge(record, nic.network))) {
      return 'NICs on a bridge cannot wait'
    }
    const keptMiB = [...this.#copies.values()].reduce((sum, copy) => sum + copy.spec.memoryMiB, 0)
    if (keptMiB + spec.memoryMiB > memoryMiB) return `standby.memoryMiB of this host is ${memoryMiB}`
    if (this.#deps.availableMiB() - spec.memoryMiB < keepFreeMiB) return 'this host has too little memory left'
    return this.#deps.clock.now() < this.#pausedUntilMs ? 'it was given up a moment ago' : undefined
  }

  #keepOnly(group: string, vms: ReadonlySet<string>, why: string): void {
    for (const copy of this.#copies.values()) {
      if (copy.group === group && !vms.has(copy.spec.id)) this.#giveUp(copy, why)
    }
    for (const [key, { status }] of this.#missing) {
      if (status.group === group && !vms.has(status.vm)) this.#missing.delete(key)
    }
  }

  #look(): void {
    this.#cancelLook = this.#deps.clock.after(LOOK_MS, () => {
      if (this.#stopped) return
      const short = this.#copies.size > 0 && this.#deps.availableMiB() < this.#deps.settings.keepFreeMiB
      const [largest] = this.#largestFirst()
      if (short && largest !== undefined) {
        this.#pausedUntilMs = this.#deps.clock.now() + PAUSE_MS
        this.#giveUp(largest, 'this host has too little memory left')
      }
      this.#look()
    })
  }

  #largestFirst(): StandbyCopy[] {
    return [...this.#copies.values()].sort((a, b) => b.spec.memoryMiB - a.spec.memoryMiB)
  }

  #giveUp(copy: StandbyCopy, why: string): void {
    const key = keyOf(copy.group, copy.spec.id)
    if (this.#copies.get(key) === copy) this.#copies.delete(key)
    this.#ending = Promise.all([this.#ending, copy.end()])
    this.#tell('standby.ended', copy, why)
  }

  #tell(kind: string, { group, spec }: StandbyCopy, why: string): void {
    this.#deps.report(kind, { group, vm: spec.id, why })
  }
}

const keyOf = (group: string, vm: string): string => `${group}/${vm}`
