/**
 * One drill: every VM of a group starts from an epoch on this host, on a switch that no link leads out of, a command looks at
 * them, and all of it is taken away. They are no owners of anything: no lease, no epoch, no word to other peers; their shards
 * are read as a restore reads them.
 */
import { type GroupRecord, type KeptEpoch, type NicSpec, nicsOf, type VmSpec } from '../../protocols/group.ts'
import type { PeerId } from '../../protocols/core.ts'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type {
  Clock,
  DrilledVm,
  DrillHost,
  DrillReport,
  DrillRoom,
  DrillWish,
  ImageManifest,
  ImageWorker,
  Switch
} from '../ports.ts'
import { tellOfRestore } from './after-restore.ts'
import type { Report } from './group-agent.ts'
import { LocalVm, type LocalVmDeps } from './local-vm.ts'
import { heldBack, type RestoreLine, type TalksReader } from './restore-line.ts'

/** What a shell ends with where it may not run a command, or there is none (POSIX, Shell Command Language, 2.8.2). */
const UNTRIED: ReadonlySet<number> = new Set([126, 127])

export interface DrillRunDeps extends TalksReader {
  readonly self: PeerId
  readonly clock: Clock
  readonly vm: LocalVmDeps
  readonly host: DrillHost
  readonly report: Report
  /** Of this drill's VMs and of no others. */
  openLine(): RestoreLine
  /** A switch of its own, from which no frame leaves. */
  openNetwork(): Switch
  /** Of no image's neighbours: what a drill restores, the live VMs of this host must not lean on. */
  openWorker(group: string, spec: VmSpec): Promise<ImageWorker>
  readManifest(hash: string): Promise<ImageManifest>
}

/** What became of a drill, but for who ran it. */
export type DrillResult = Omit<DrillReport, 'peer'>

/** Something on this host may join the drill's networks under this name. No VM has such a name. */
const STATION = 'a station'
/** Locally administered, and of no range that hypervisors make addresses in. */
const STATION_MAC = '06:d1:a9:00:00'

export const interrupted = (group: string): DiapauseError =>
  new DiapauseError('DRILL_INTERRUPTED', `The drill of group "${group}" was given up, and nothing is left of it.`)

/** Why it is given up: what `signal` was aborted with, where that says so. */
const givenUp = ({ reason }: AbortSignal, group: string): DiapauseError =>
  reason instanceof DiapauseError ? reason : interrupted(group)

export class DrillRun {
  readonly #deps: DrillRunDeps
  readonly #wish: DrillWish
  readonly #epoch: KeptEpoch
  readonly #record: GroupRecord
  readonly #networks: readonly NicSpec[]
  readonly #tell: (text: string) => void
  readonly #vms = new Map<string, DrilledVm>()
  /** What ends it before its time. */
  readonly #over = Promise.withResolvers<never>()
  #check: DrillReport['check']
  /** What comes to an end from now on is taken away. */
  #closing = false

  constructor(deps: DrillRunDeps, wish: DrillWish, group: GroupRecord, epoch: KeptEpoch, tell: (text: string) => void) {
    this.#deps = deps
    this.#wish = wish
    this.#epoch = epoch
    this.#networks = networksOf(group.vms)
    this.#record = drillRecord(group, epoch, this.#networks, deps.self)
    this.#tell = tell
    for (const { id } of group.vms) this.#vms.set(id, { vm: id })
    this.#over.promise.catch(() => {}) // it may come when nobody waits for it any more
  }

  /** Resolves when nothing is left of it, also where it fails. DRILL_INTERRUPTED, or its own reason, when `signal` aborts. */
  async run(signal: AbortSignal): Promise<DrillResult> {
    const { clock, host } = this.#deps
    const { group, timeoutMs } = this.#wish
    const begunMs = clock.now()
    const seconds = Math.round(timeoutMs / 1_000)
    const late = new DiapauseError('DRILL_LATE', `it had not passed after ${seconds} s`)
    const disarm = clock.after(timeoutMs, () => this.#over.reject(late))
    const abort = (): void => this.#over.reject(givenUp(signal, group))
    signal.addEventListener('abort', abort)
    if (signal.aborted) abort()
    let failed: string | undefined
    let untried = false
    try {
      const vms = this.#specs
      const room = await host.open({ group, epoch: this.#epoch.epoch, vms, networks: this.#networks })
      try {
        await this.#inRoom(room)
      } finally {
        await room.close()
      }
    } catch (error) {
      if (signal.aborted) throw givenUp(signal, group)
      failed = messageOf(error)
      untried = hasCode(error, 'DRILL_UNTRIED')
    } finally {
      disarm()
      signal.removeEventListener('abort', abort)
    }
    const [vms, check] = [[...this.#vms.values()], this.#check]
    const { epoch } = this.#epoch
    const outcome = { ...(check && { check }), ...(failed !== undefined && { failed }), ...(untried && { untried }) }
    return { group, epoch, tookMs: clock.now() - begunMs, vms, ...outcome }
  }

  get #specs(): readonly VmSpec[] {
    return this.#record.vms.filter(({ id }) => id !== STATION)
  }

  async #inRoom(room: DrillRoom): Promise<void> {
    const { openNetwork, openLine, clock } = this.#deps
    const network = openNetwork()
    const line = openLine()
    const { id: group, generation } = this.#record
    const heldOf = heldBack(this.#record, { line }, this.#deps)
    const vms = this.#specs.map(spec => {
      const { together } = heldOf(spec.id)
      const deps = { ...this.#vmDeps(network, room), together }
      return new LocalVm(this.#record, spec, deps, reason => this.#ended(spec.id, reason))
    })
    const ended = new AbortController()
    let station: Awaited<ReturnType<Switch['attach']>> | undefined
    try {
      network.setGroup(this.#record)
      if (this.#networks.length > 0) {
        const { epoch } = this.#epoch
        station = await network.attach({ group, vm: STATION, generation, epoch, nicPath: room.netPath })
        await station.release()
      }
      await room.openConsoles(async (vm, text) => await vms.find(({ spec }) => spec.id === vm)?.type(text))
      this.#progress()
      const begun = vms.map(vm => this.#resume(vm, room, clock.now()))
      await this.#unlessOver(Promise.all(begun))
      const whole = begun.map(async resumed => await (await resumed).whole)
      await this.#unlessOver(Promise.all([...whole, this.#runCheck(room, ended.signal)]))
    } finally {
      this.#closing = true
      ended.abort()
      line.stop()
      await Promise.allSettled(vms.map(vm => vm.destroy()))
      await station?.detach()
      network.removeGroup(group)
    }
  }

  /** What is given up goes on in the background until its parts are taken away, and may fail then. */
  async #unlessOver<T>(work: Promise<T>): Promise<T> {
    work.catch(() => {})
    return await Promise.race([this.#over.promise, work])
  }

  /** Resolves when it runs; `whole`, when it has all its pages. */
  async #resume(vm: LocalVm, room: DrillRoom, begunMs: number): Promise<{ whole: Promise<void> }> {
    const { clock, readManifest } = this.#deps
    const { id } = vm.spec
    const { committed } = this.#record
    if (committed === null) throw new TypeError('a drill is one of an epoch')
    const hash = committed.images[id] as string // every epoch has an image of every VM
    try {
      const { complete } = await vm.resumeFrom(committed, readManifest(hash), Promise.resolve())
      this.#note(id, { runsMs: clock.now() - begunMs })
      if (vm.pid !== undefined) await room.giveWay(vm.pid)
      void tellOfRestore(vm, {
        ...this.#deps,
        wallMs: this.#deps.vm.wallMs,
        uplink: true,
        report: this.#guestReport(id)
      })
      // What it asks for is what its next restore will ask for, too: a lesson for the working set, which nobody takes from here yet.
      const whole = complete.then(
        counts => this.#note(id, { wholeMs: clock.now() - begunMs, ...counts }),
        error => this.#lost(id, messageOf(error))
      )
      whole.catch(() => {}) // awaited when all run
      return { whole }
    } catch (error) {
      return this.#lost(id, messageOf(error))
    }
  }

  #guestReport(vm: string): Report {
    const { group } = this.#wish
    return (kind, fields) => this.#deps.report(`drill.${kind}`, { group, vm, ...fields })
  }

  async #runCheck(room: DrillRoom, signal: AbortSignal): Promise<void> {
    const { check: command, cwd } = this.#wish
    if (command === undefined) return
    const { clock } = this.#deps
    const begunMs = clock.now()
    const line = (text: string): void => this.#progress(text)
    const outcome = await room.check(command, { cwd, signal, line })
    this.#check = { command, tookMs: clock.now() - begunMs, ...outcome }
    const { exitCode } = outcome
    if (exitCode === 0) return
    if (exitCode !== null && UNTRIED.has(exitCode)) {
      const why = `the check could not be tried: a command in it is not there or may not be run (exit code ${exitCode})`
      throw new DiapauseError('DRILL_UNTRIED', why)
    }
    const how = exitCode === null ? 'was ended by a signal' : `ended with exit code ${exitCode}`
    throw new DiapauseError('DRILL_CHECK', `the check ${how}`)
  }

  #ended(vm: string, reason: string): void {
    try {
      this.#lost(vm, reason)
    } catch (error) {
      this.#over.reject(error)
    }
  }

  #lost(vm: string, failed: string): never {
    if (!this.#closing) this.#note(vm, { failed })
    throw new DiapauseError('DRILL_VM', `VM ${vm}: ${failed}`)
  }

  #note(vm: string, news: Partial<DrilledVm>): void {
    this.#vms.set(vm, { vm, ...this.#vms.get(vm), ...news })
    this.#progress()
  }

  #progress(line?: string): void {
    const vms = [...this.#vms.values()]
    const run = vms.filter(({ runsMs }) => runsMs !== undefined).length
    const whole = vms.filter(({ wholeMs }) => wholeMs !== undefined).length
    const text = `epoch ${this.#epoch.epoch}: ${run} of ${vms.length} VMs run, ${whole} have all their memory`
    this.#tell(line === undefined ? text : `${text}; check: ${line}`)
  }

  #vmDeps(network: Switch, room: DrillRoom): LocalVmDeps {
    const { vm, openWorker } = this.#deps
    const { group } = this.#wish
    return {
      ...vm,
      network,
      shareBases: undefined,
      openWorker: (_, spec) => openWorker(group, spec),
      path: (kind, of, id) => {
        if (kind === 'layers') return vm.path(kind, of, id)
        return kind === 'console' ? room.logOf(id) : room.socketOf(id, kind)
      }
    }
  }
}

/** The group's networks, each once, the outside too: whoever joins it is all that is there. */
function networksOf(vms: readonly VmSpec[]): NicSpec[] {
  const names = new Set(vms.flatMap(spec => nicsOf(spec).map(({ network }) => network)))
  return [...names].map((network, index) => {
    return { network, mac: `${STATION_MAC}:${(index & 255).toString(16).padStart(2, '0')}` }
  })
}

/**
 * The group as it is in its drill. Its name is no group's, so that sockets and folders are its own; it says nothing to the
 * outside, so nothing waits to be said; and its networks are not on the host's bridge.
 */
function drillRecord(
  { id, vms, generation }: GroupRecord,
  { epoch, generation: ofEpoch, images }: KeptEpoch,
  networks: readonly NicSpec[],
  self: PeerId
): GroupRecord {
  // RAM that needs no tracking: a drill is never cut.
  const specs: VmSpec[] = vms.map(spec => ({ ...spec, capture: 'portable' }))
  const station = { id: STATION, nics: networks, memoryMiB: 0 }
  const all = networks.length > 0 ? [...specs, station] : specs
  const owners = Object.fromEntries(all.map(spec => [spec.id, self]))
  const committed = { epoch, generation: ofEpoch, previousEpoch: 0, images }
  const numbers = { version: 1, generation, lastEpoch: epoch, open: null, removed: false }
  return { id: `drill of ${id}`, vms: all, owners, committed, ...numbers }
}
