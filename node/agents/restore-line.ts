/**
 * VMs that wait for each other's answers start together (`planning/restore-line.ts` has why): each owner says when a VM of its own
 * is ready, and lets it run when all of its component are, or when the first of them has waited for `restore.togetherMs`.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { parseReadyMessage, RESTORE_PROTOCOL } from '../../protocols/restore-line.ts'
import type { Talk } from '../../protocols/talks.ts'
import type { TalksOf } from '../planning/communication.ts'
import { startsWith } from '../planning/restore-line.ts'
import type { Clock, ControlBus } from '../ports.ts'
import type { GroupDirectory } from './directory.ts'

/** A peer that missed the word hears of it again. A guess: half of TCP's shortest timeout. */
const REPEAT_MS = 100
/** Groups whose last restore is remembered. A guess: more than go back at a time. */
const MAX_GROUPS = 1_000

export interface RestoreLineDeps {
  readonly self: PeerId
  readonly bus: ControlBus
  readonly directory: Pick<GroupDirectory, 'get'>
  readonly clock: Clock
  readonly togetherMs: number
}

/** How a VM came to start when it did. */
export interface LineWait {
  /** How long it was ready and stopped. */
  readonly heldMs: number
  /** VMs that it should have started with, and that were not ready. */
  readonly without: readonly string[]
}

interface Generation {
  readonly generation: number
  /** VM → who said so first, and when. */
  readonly ready: Map<string, { readonly by: PeerId; readonly atMs: number }>
  /** Told of every change. */
  readonly waiting: Set<() => void>
  over: boolean
}

export class RestoreLine {
  readonly #deps: RestoreLineDeps
  readonly #groups = new Map<string, Generation>()
  #stopped = false

  constructor(deps: RestoreLineDeps) {
    this.#deps = deps
    deps.bus.on(RESTORE_PROTOCOL, parseReadyMessage, (from, { group, generation, vm }) => {
      // A word of a generation that this peer has not heard of yet is repeated; kept, any member could say what it likes.
      const record = deps.directory.get(group)
      if (record === undefined || record.removed || record.generation !== generation) return
      if (!record.vms.some(({ id }) => id === vm) || record.owners[vm] !== from) return
      const now = this.#at(group, generation)
      if (now !== undefined) this.#note(now, vm, from)
    })
  }

  stop(): void {
    this.#stopped = true
    for (const generation of this.#groups.values()) end(generation)
  }

  /** Whether any VM of the group may have to wait for another. */
  waits({ vms }: GroupRecord): boolean {
    return this.#deps.togetherMs > 0 && vms.length > 1
  }

  /** VM `vm` of ours is ready; resolves when it is to run. `talks`: of the group's images. */
  async together(record: GroupRecord, vm: string, talks: Promise<TalksOf>): Promise<LineWait> {
    const { clock, self, togetherMs } = this.#deps
    const now = this.#at(record.id, record.generation)
    const readyMs = clock.now()
    if (now === undefined || !this.waits(record)) return { heldMs: 0, without: [] }
    this.#note(now, vm, self)
    this.#announce(record, vm, now, readyMs + togetherMs)
    let partners: readonly string[] | undefined
    const learned = talks.then(
      all =>
        startsWith(
          vm,
          record.vms.map(({ id }) => id),
          all
        ),
      () => []
    )
    void learned.then(all => {
      partners = all
      for (const look of now.waiting) look()
    })
    const missing = (): readonly string[] | undefined =>
      partners?.filter(other => now.ready.get(other)?.by !== record.owners[other])
    await this.#until(now, () => {
      const firstMs = Math.min(readyMs, ...(partners ?? []).map(other => now.ready.get(other)?.atMs ?? readyMs))
      return missing()?.length === 0 ? 0 : firstMs + togetherMs - clock.now()
    })
    return { heldMs: clock.now() - readyMs, without: missing() ?? [] }
  }

  /** Resolves when `leftMs` is not positive any more, which is asked at each change and when it should be. */
  #until(now: Generation, leftMs: () => number): Promise<void> {
    return new Promise(resolve => {
      let cancel = (): void => {}
      const look = (): void => {
        cancel()
        const left = now.over ? 0 : leftMs()
        if (left > 0) cancel = this.#deps.clock.after(left, look)
        else {
          now.waiting.delete(look)
          resolve()
        }
      }
      now.waiting.add(look)
      look()
    })
  }

  #announce(record: GroupRecord, vm: string, now: Generation, untilMs: number): void {
    const { self, bus, clock } = this.#deps
    if (now.over || clock.now() > untilMs) return
    const { id: group, generation, owners } = record
    for (const owner of new Set(Object.values(owners))) {
      if (owner !== self) bus.send(owner, RESTORE_PROTOCOL, { kind: 'ready', group, generation, vm })
    }
    clock.after(REPEAT_MS, () => this.#announce(record, vm, now, untilMs))
  }

  #note(now: Generation, vm: string, by: PeerId): void {
    if (now.ready.get(vm)?.by === by) return
    now.ready.set(vm, { by, atMs: this.#deps.clock.now() })
    for (const look of now.waiting) look()
  }

  /** Undefined where a newer one has begun. */
  #at(group: string, generation: number): Generation | undefined {
    const known = this.#groups.get(group)
    if (this.#stopped || (known !== undefined && known.generation > generation)) return undefined
    if (known?.generation === generation) return known
    if (known !== undefined) end(known)
    const fresh: Generation = { generation, ready: new Map(), waiting: new Set(), over: false }
    this.#groups.delete(group)
    this.#groups.set(group, fresh)
    const [oldest] = this.#groups
    if (this.#groups.size > MAX_GROUPS && oldest !== undefined) {
      end(oldest[1])
      this.#groups.delete(oldest[0])
    }
    return fresh
  }
}

/** Who waits in it need not: the VM ends, or another peer knows better. */
function end(generation: Generation): void {
  generation.over = true
  for (const look of generation.waiting) look()
}

export interface LineDeps {
  /** Who starts together. Absent: each when it is ready. */
  readonly line?: RestoreLine | undefined
}

export interface TalksReader {
  /** With whom the VM of that image, by its manifest's name, had spoken. Absent: nobody knows. */
  readTalks?(manifest: string): Promise<readonly Talk[]>
}

/** By VM, of the committed images. One that cannot be read says nothing. */
export async function imageTalks({ committed }: GroupRecord, reader: TalksReader): Promise<TalksOf> {
  const each = Object.entries(committed?.images ?? {}).map(async ([vm, manifest]) => {
    const talks = (await reader.readTalks?.(manifest).catch(() => undefined)) ?? []
    return [vm, talks] as const
  })
  return Object.fromEntries(await Promise.all(each))
}

/** What holds back a VM, and how long it did. */
export interface Held {
  together(): Promise<void>
  told(): Partial<LineWait>
}

/**
 * For each VM here of the record's committed epoch. What images say of talks is read from now on, once for all of them, and only
 * where any has to wait.
 */
export function heldBack(record: GroupRecord, { line }: LineDeps, reader: TalksReader): (vm: string) => Held {
  if (line === undefined || reader.readTalks === undefined)
    return () => ({ together: async () => {}, told: () => ({}) })
  const talks = line.waits(record) ? imageTalks(record, reader) : Promise.resolve({})
  const told = ({ heldMs, without }: LineWait) => ({ heldMs, ...(without.length > 0 && { without }) })
  return vm => {
    let wait: LineWait | undefined
    return {
      async together() {
        wait = await line.together(record, vm, talks)
      },
      told: () => (wait === undefined ? {} : told(wait))
    }
  }
}
