/** One VM of a peer, all of whose parts are fakes. */
import type { CutWords } from '../../node/agents/cut-words.ts'
import { LocalVm } from '../../node/agents/local-vm.ts'
import type { StandbyParts } from '../../node/agents/standby-copy.ts'
import type {
  Clock,
  ImageManifest,
  ImageWorker,
  Machine,
  MachineOptions,
  NicPort,
  PageRanges,
  Restore
} from '../../node/ports.ts'
import type { GroupRecord } from '../../protocols/group.ts'

/** A VM whose machine, NIC and image worker do what the test says. */
export class World {
  /** Image workers. */
  opened = 0
  readonly calls: string[] = []
  readonly ends: string[] = []
  readonly due: (() => void)[] = []
  readonly vm: LocalVm
  readonly served = Promise.withResolvers<{ pagesFaulted: number; pagesPushed: number }>()
  readonly machineGone = Promise.withResolvers<void>()
  /** Settles when the switch has the VM's NIC. */
  attached: Promise<void> = Promise.resolve()
  /** Of a machine whose RAM is copied while it runs: settles when a round is done. */
  copying: PromiseWithResolvers<void> | undefined
  exit: (reason: string) => void = () => {}
  /** Whether frames flow to the VM. */
  open = false
  /** What became of the machine after cuts and stops. */
  readonly went: string[] = []
  /** Settle when the machine goes on after a pause, and when it stands still in a cut. */
  readonly resumed = Promise.withResolvers<void>()
  readonly stopped = Promise.withResolvers<void>()

  constructor(together = async (): Promise<void> => {}) {
    const record = { id: 'bank', generation: 3, vms: [], owners: {} } as unknown as GroupRecord
    const spec = { id: 'vm1', mac: '52:54:00:00:00:01', memoryMiB: 96, kernel: '', initrd: '', append: '' }
    const clock: Clock = {
      now: () => 0,
      after: (_, fn) => {
        this.due.push(fn)
        return () => {}
      }
    }
    const [machine, worker, nic] = [this.#machine(), this.#worker(), this.#nic()]
    const define = ({ onExit }: MachineOptions): Machine => {
      this.exit = onExit
      return machine
    }
    const deps = {
      clock,
      together,
      hypervisor: { define },
      network: { attach: () => this.attached.then(() => nic) },
      openWorker: async () => {
        this.opened++
        return worker
      },
      wallMs: () => 0,
      path: () => ''
    } as unknown as ConstructorParameters<typeof LocalVm>[2]
    this.vm = new LocalVm(record, spec, deps, reason => this.ends.push(reason))
  }

  async #did(what: string): Promise<void> {
    this.calls.push(what)
  }

  #machine(): Machine {
    const [world, changed] = [this, async () => Uint32Array.of(0, 30_000)]
    return {
      get tracking() {
        return world.copying && { ramPath: '', changed }
      },
      startIncoming: async (_: string, connectable: () => void) => connectable(),
      incomingComplete: () => new Promise<void>(() => {}),
      prepareCut: async () => {},
      disks: { here: Promise.resolve(), release() {}, join() {} },
      stop: async () => {},
      resume: () => this.resumed.promise.then(() => void this.went.push('on')),
      cut: async (_: string, turn: () => Promise<void>, { stays } = { stays: false }) => {
        await this.stopped.promise
        await turn()
        if (stays) this.went.push('stays')
        return { pauseMs: 1, streamed: Promise.resolve(), layers: [] }
      },
      destroy: async () => {
        this.calls.push('machine')
        await this.machineGone.promise
      }
    } as unknown as Machine
  }

  #worker(): ImageWorker {
    const cancel = (): Promise<void> => this.#did('restore')
    const restore = { frames: [], serve: () => this.served.promise, cancel } as unknown as Restore
    return {
      restore: async () => restore,
      capture: async () => ({
        copy: () => this.copying?.promise,
        hurry: async () => {
          this.copying?.resolve()
          return 20_000
        },
        shipped: async () => {},
        copyLast: (pages: PageRanges) => this.#did(`copyLast of ${pages.length / 2} ranges`),
        cancel: async () => {}
      }),
      abort: () => {},
      close: () => this.#did('worker')
    } as unknown as ImageWorker
  }

  #nic(): NicPort {
    return {
      ends: [],
      inject: async () => {},
      prepare: async () => {},
      hold: async () => {
        this.open = false
      },
      release: async () => {
        this.open = true
      },
      drained: async () => {},
      turn: async () => ({}),
      recorded: () => new Promise(() => {}),
      abandon: (epoch: number) => this.#did(`abandon ${epoch}`),
      detach: () => this.#did('nic')
    } as unknown as NicPort
  }

  /** The switch does not take the VM's NIC. */
  refuse(): void {
    this.attached = Promise.reject(new Error('GENERATION_OLD'))
    this.attached.catch(() => {})
  }

  async resume(standby?: StandbyParts) {
    const committed = { epoch: 4, images: {} } as unknown as Parameters<LocalVm['resumeFrom']>[0]
    return await this.vm.resumeFrom(committed, Promise.resolve({} as ImageManifest), Promise.resolve(), standby)
  }

  /** Nobody has attached its NICs. */
  standby(): StandbyParts {
    const parts = { machine: this.#machine(), worker: this.#worker(), restore: { cancel: () => this.#did('restore') } }
    const nics = { ends: [], close: () => this.#did('reserved NICs') }
    const disks = { end: () => this.#did('disks'), begun() {} }
    return { ...parts, nics, disks, nicPath: '', socketPath: '', setOnExit() {} } as unknown as StandbyParts
  }
}

export const nowhere = { holders: [], peers: [] }
export const atOnce: CutWords = {
  copying: () => {},
  mayCut: async () => {},
  rests: () => false,
  hurry: new Promise(() => {})
}

export const turns = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) await Promise.resolve()
}
