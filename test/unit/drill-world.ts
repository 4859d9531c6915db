/** A peer with a group whose record is truth at once, and with machines, a network and a room of drills that do what a test says. */
import { setImmediate as turn } from 'node:timers/promises'
import { Drills, type DrillsDeps } from '../../node/agents/drills.ts'
import { ScheduledDrills } from '../../node/agents/drill-schedule.ts'
import { RestoreLine } from '../../node/agents/restore-line.ts'
import type { CheckOutcome, Clock, DrillAbout, DrillWish, Machine, MachineOptions, NicPort } from '../../node/ports.ts'
import { commitEpoch, createGroup, openEpoch } from '../../protocols/epoch/record.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { initialRecord } from '../../protocols/membership/genesis.ts'
import { SeenKeepers } from './seen-keepers.ts'

type Change = (current: GroupRecord | null) => GroupRecord | undefined

const founder = { id: 'me', name: 'oak', address: '/ip4/127.0.0.1/tcp/1', role: 'storage' } as const
const vm = (id: string, network: string) => ({
  id,
  nics: [{ mac: '52:54:00:00:00:01', network }],
  memoryMiB: 64,
  kernel: '/k',
  initrd: '/i',
  append: ''
})

export class DrillWorld {
  nowMs = 0
  record: GroupRecord | null
  availableMiB = 4_096
  /** What the log of calls has of the machines, the network and the room. */
  readonly calls: string[] = []
  readonly events: string[] = []
  readonly told: string[] = []
  /** What VMs have when they are resumed: fails where it says so. */
  failing: { vm: string; when: 'resume' | 'pages' } | undefined
  /** Each waits for the test where it is set. */
  check: Promise<CheckOutcome> = Promise.resolve({ exitCode: 0, output: ['fine'] })
  /** Ends a VM of the drill. */
  readonly exits = new Map<string, (reason: string) => void>()
  about: DrillAbout | undefined
  alive = true
  older: readonly string[] = []
  /** Of 'me', 'other' and a third. */
  readonly seen: SeenKeepers
  readonly drills: Drills
  readonly scheduled: ScheduledDrills
  #timers: { atMs: number; fn: () => void }[] = []
  #handlers: ((record: GroupRecord) => void)[] = []
  #onForgotten: ((id: string) => void)[] = []

  constructor(memoryMiB?: number) {
    const made = createGroup('bank', [vm('a', 'default'), vm('b', 'uplink')], { a: 'me', b: 'other' })(null)
    this.record = commit(made as GroupRecord)
    const common = this.#shared()
    this.seen = new SeenKeepers('me', ['me', 'other', 'third'], common.directory)
    const shared = { ...common, keepers: this.seen.keepers, run: 'run1', self: 'me' }
    this.drills = new Drills({ ...shared, ...this.#deps(), memoryMiB })
    this.scheduled = new ScheduledDrills({
      ...shared,
      drills: this.drills,
      detector: { livenessOf: () => (this.alive ? 'alive' : 'dead') },
      checks: { books: 'count' }
    })
  }

  run(wish: Partial<DrillWish> = {}, signal = new AbortController().signal) {
    const tell = (text: string): void => void this.told.push(text)
    return this.drills.run({ group: 'bank', timeoutMs: 60_000, ...wish }, { tell, signal })
  }

  change(next: Change): GroupRecord | null {
    const after = next(this.record)
    if (after !== undefined) {
      this.record = after
      for (const handler of this.#handlers) handler(after)
    }
    return this.record
  }

  /** It hears of another group. */
  hear(record: GroupRecord): void {
    for (const handler of this.#handlers) handler(record)
  }

  /** It hears that a group is no more. */
  forget(id: string): void {
    for (const handler of this.#onForgotten) handler(id)
  }

  commit(): void {
    this.change(current => (current === null ? undefined : commit(current)))
  }

  /** Time goes on, and what is due happens. */
  async pass(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms
    for (;;) {
      for (let i = 0; i < 50; i++) await turn()
      const [next] = this.#timers.filter(({ atMs }) => atMs <= untilMs).sort((x, y) => x.atMs - y.atMs)
      if (next === undefined) break
      this.nowMs = next.atMs
      this.#timers = this.#timers.filter(timer => timer !== next)
      next.fn()
    }
    this.nowMs = untilMs
  }

  get clock(): Clock {
    return {
      now: () => this.nowMs,
      after: (ms, fn) => {
        const timer = { atMs: this.nowMs + ms, fn }
        this.#timers.push(timer)
        return () => {
          this.#timers = this.#timers.filter(each => each !== timer)
        }
      }
    }
  }

  #shared() {
    const quiet = (): void => {}
    return {
      clock: this.clock,
      wallMs: () => 1_000_000 + this.nowMs,
      log: { debug: quiet, info: quiet, warn: quiet, error: quiet },
      membership: { record: () => initialRecord('0'.repeat(32), 'forest', founder) },
      directory: {
        onRecord: (handler: (record: GroupRecord) => void) => void this.#handlers.push(handler),
        onForgotten: (handler: (id: string) => void) => void this.#onForgotten.push(handler),
        all: () => (this.record === null ? [] : [this.record]),
        get: () => this.record ?? undefined,
        refresh: () => Promise.resolve(this.record),
        change: async (_: string, next: Change) => this.change(next)
      }
    }
  }

  #deps(): Pick<
    DrillsDeps,
    'nameOf' | 'olderMembers' | 'report' | 'host' | 'vm' | 'openNetwork' | 'openLine' | 'openWorker' | 'readManifest'
  > {
    const call = (what: string): void => void this.calls.push(what)
    const port = { ends: [], detach: async () => call('nic ends') }
    const nic = { ...port, release: async () => {}, inject: async () => {}, hold: async () => {} } as unknown as NicPort
    const worker = {
      restore: async () => ({
        frames: [],
        serve: async () => ({ pagesFaulted: 3, pagesPushed: 5 }),
        cancel: async () => {}
      }),
      close: async () => call('worker ends')
    }
    const bus = { self: 'me', send: () => false, on: () => {} }
    const live = { path: () => 'live', clock: this.clock, log: this.#shared().log, wallMs: () => 0 }
    return {
      nameOf: () => 'oak',
      olderMembers: () => this.older,
      report: (kind, { reason = '' }) => void this.events.push(`${kind} ${String(reason)}`.trim()),
      host: {
        availableBytes: () => this.availableMiB * 1_048_576,
        open: async about => {
          this.about = about
          return {
            folder: 'room',
            logOf: id => `room/${id}.log`,
            socketOf: (id, kind) => `room/${id}.${kind}`,
            netPath: 'room/net',
            openConsoles: async () => {},
            giveWay: async () => {},
            check: (command, { signal }) => {
              call(`check ${command}`)
              const ended = new Promise<never>((_, reject) =>
                signal.addEventListener('abort', () => reject(new Error('ended')))
              )
              return Promise.race([this.check, ended])
            },
            close: async () => call('room closes')
          }
        }
      },
      vm: {
        ...live,
        hypervisor: { define: (options: MachineOptions) => this.#machine(options) }
      } as unknown as DrillsDeps['vm'],
      openNetwork: () => ({
        setGroup: ({ id, vms }) => call(`${id}: ${vms.map(spec => spec.id).join()}`),
        removeGroup: () => call('network ends'),
        attach: async ({ nicPath }) => {
          call(`nic ${nicPath}`)
          return nic
        },
        onMarker: () => {},
        stats: () => {
          throw new TypeError('nobody asks')
        }
      }),
      openLine: () => {
        const directory = { get: () => undefined }
        return new RestoreLine({ self: 'me', bus, clock: this.clock, directory, togetherMs: 2_000 })
      },
      openWorker: async () => worker as never,
      readManifest: async () => ({}) as never
    }
  }

  #machine({ spec: { id }, onExit }: MachineOptions): Machine {
    this.exits.set(id, onExit)
    const fails = (when: string) => this.failing?.vm === id && this.failing.when === when
    return {
      startIncoming: async (_: string, connectable: () => void) => {
        if (fails('resume')) throw new Error('no shards')
        connectable()
      },
      incomingComplete: async () => {
        if (fails('pages')) throw new Error('a page is lost')
      },
      destroy: async () => void this.calls.push(`${id} ends`)
    } as unknown as Machine
  }
}

function commit(record: GroupRecord): GroupRecord {
  const opened = openEpoch('me', 1, record.version)(record) as GroupRecord
  const hash = (id: string) => `${opened.lastEpoch}${id.charCodeAt(0)}`.padStart(64, '0')
  const images = Object.fromEntries(record.vms.map(({ id }) => [id, hash(id)]))
  return commitEpoch(opened.generation, opened.lastEpoch, images)(opened) as GroupRecord
}
