/** The bank (test/guest) in a cluster of containers: what its VMs say, and where they run. */
import { setTimeout as sleep } from 'node:timers/promises'
import { hasCode } from '../../node/errors.ts'
import type { PeerStatus } from '../../node/edge/view.ts'
import { guestName } from '../../node/hypervisor/command-line.ts'
import { ConsoleWatcher } from '../demo/consoles.ts'
import { naming } from '../demo/processes.ts'
import { wallMs } from '../demo/story.ts'
import { bankTotal } from '../guest/build.ts'
import { type BankReport, conservation } from '../guest/console.ts'
import type { Compose } from './compose.ts'

export const GROUP = 'bank'

/** Longest wait for anything: several times what two busy cores took. */
const LIMIT_MS = 60_000

export class ContainerBank {
  readonly #compose: Compose
  readonly #services: readonly string[]
  readonly #consoles: ConsoleWatcher
  readonly #vms: readonly string[]
  #audits = 0

  constructor(compose: Compose, services: readonly string[], vms: number) {
    this.#compose = compose
    this.#services = services
    this.#vms = Array.from({ length: vms }, (_, i) => `vm${i + 1}`)
    this.#consoles = new ConsoleWatcher(
      services.map(service => `${compose.runDir(service)}/console`),
      GROUP,
      wallMs
    )
  }

  /** Of every peer that answers, by service. */
  async statuses(): Promise<Map<string, PeerStatus>> {
    const all = await Promise.all(
      this.#services.map(async service => {
        await this.#compose.link(service).catch(() => {}) // between two lives of a container
        const status = await this.#compose
          .client(service)
          .status()
          .catch(() => undefined)
        return [service, status] as const
      })
    )
    return new Map(all.flatMap(([service, status]) => (status === undefined ? [] : [[service, status] as const])))
  }

  /** VM → the services that run it now, by their own word. */
  async running(): Promise<Record<string, string[]>> {
    const statuses = await this.statuses()
    const at = (vm: string) =>
      [...statuses].filter(([, { groups }]) =>
        groups.some(({ record, running }) => record.id === GROUP && running.includes(vm))
      )
    return Object.fromEntries(this.#vms.map(vm => [vm, at(vm).map(([service]) => service)]))
  }

  /** How many QEMU processes there are of each VM, in all containers. */
  async processes(): Promise<Record<string, number>> {
    const ids = [...(await this.statuses()).values()].map(({ id }) => id)
    const count = (vm: string) => ids.flatMap(id => naming(`guest=${guestName(id, vm)} `)).length
    return Object.fromEntries(this.#vms.map(vm => [vm, count(vm)]))
  }

  async generation(): Promise<number> {
    const statuses = await this.statuses()
    const records = [...statuses.values()].flatMap(({ groups }) => groups.map(({ record }) => record))
    return Math.max(0, ...records.filter(({ id }) => id === GROUP).map(({ generation }) => generation))
  }

  /** All peers are there and see each other. */
  async connected(): Promise<void> {
    await this.until('all peers to see each other', async () => {
      const statuses = [...(await this.statuses()).values()]
      const seen = statuses.filter(({ members, id }) =>
        members.every(member => member.id === id || (member.liveness === 'alive' && member.connected))
      )
      return seen.length === this.#services.length ? true : undefined
    })
  }

  /** Every VM runs at one place, of the services given, in a later generation, and money moves between all. */
  async recovered(after: number, places: readonly string[]): Promise<void> {
    await this.until(`a generation after ${after}`, async () => ((await this.generation()) > after ? true : undefined))
    await this.until(`each VM to run once, on ${places.join(', ')}`, async () => {
      const running = Object.values(await this.running())
      return running.every(([place, ...more]) => place !== undefined && places.includes(place) && more.length === 0)
        ? true
        : undefined
    })
    await this.working()
  }

  async working(): Promise<void> {
    const sinceMs = wallMs()
    const fresh = () =>
      [...this.#consoles.latest.values()].filter(({ atMs }) => atMs > sinceMs).map(({ latest }) => latest)
    const before = await this.until('a report of every VM', () => {
      const reports = fresh()
      return reports.length === this.#vms.length ? reports : undefined
    })
    await this.until('all banks to move money', () => {
      const busy = fresh().filter(report => received(report) > received(before.find(({ vm }) => vm === report.vm)) + 20)
      return busy.length === this.#vms.length && busy.every(each => each.conns === 2 * (this.#vms.length - 1))
        ? true
        : undefined
    })
  }

  /** Takes one; the shipped config takes them by itself, too, and of two at a time one is told to try again. */
  async epoch(service: string): Promise<void> {
    const { outcome, reason } = await this.until('an epoch', () =>
      this.#compose
        .client(service)
        .takeEpoch(GROUP)
        .catch((error: unknown) => {
          if (hasCode(error, 'EPOCH_OPEN')) return undefined
          throw error
        })
    )
    if (outcome !== 'committed') throw new Error(`the epoch was ${outcome}: ${reason}`)
  }

  /** Stops the bank for an audit and lets it go on. */
  async audit() {
    const id = ++this.#audits
    const reports = await this.until(`audit ${id} of all VMs`, async () => {
      await this.#type(`audit ${id}`)
      const found = this.#consoles.audits(id)
      return found.length === this.#vms.length ? found : undefined
    })
    await this.#type('go')
    const { money, gaps, broken, faults } = conservation(reports, bankTotal({ total: this.#vms.length }))
    return { money, gaps, broken, faults, nonces: reports.map(report => report.nonce) }
  }

  async until<T>(what: string, condition: () => T | undefined | Promise<T | undefined>): Promise<T> {
    const deadline = performance.now() + LIMIT_MS
    for (;;) {
      this.#consoles.poll()
      const result = await condition()
      if (result !== undefined) return result
      if (performance.now() > deadline) {
        const logs = await this.#compose.compose('logs', '--no-color', '--tail', '15')
        throw new Error(`waited ${LIMIT_MS / 1000} s in vain for ${what}; the peers' last words:\n${logs}`)
      }
      await sleep(250)
    }
  }

  async #type(line: string): Promise<void> {
    for (const [vm, [place]] of Object.entries(await this.running())) {
      if (place === undefined) continue
      await this.#compose
        .client(place)
        .typeConsole(GROUP, vm, `${line}\n`)
        .catch((error: unknown) => {
          if (!hasCode(error, 'VM_ELSEWHERE')) throw error
        })
    }
  }
}

const received = (report: BankReport | undefined): number =>
  [...(report?.received.values() ?? [])].reduce((sum, { count }) => sum + count, 0)
