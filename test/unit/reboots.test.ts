import { describe, expect, it } from 'vitest'
import { cutAll, cutDevices } from '../../node/hypervisor/cutting.ts'
import type { QmpClient } from '../../node/hypervisor/qmp.ts'
import type { QmpEvent } from '../../node/hypervisor/qmp-protocol.ts'
import { watchResets } from '../../node/hypervisor/resets.ts'
import type { VmSpec } from '../../protocols/group.ts'

type Hear = (event: QmpEvent) => boolean

/** A QEMU that does what it is told, and a watch over it. */
class Watched {
  nowMs = 0
  /** What was told, and when. */
  readonly told: (readonly [how: string, atMs: number])[] = []
  readonly commands: string[] = []
  /** How often somebody was asked to boot it anew. */
  asked = 0
  /** What its VM does while its last pages are copied. */
  inPause = (): void => {}
  readonly #waiters = new Map<Hear, { readonly name: string; heard(event: QmpEvent): void }>()
  readonly clock = { now: () => this.nowMs, after: () => () => {} }
  readonly qmp = {
    waitEvent: (name: string, matches: Hear = () => true) =>
      new Promise<QmpEvent>(heard => this.#waiters.set(matches, { name, heard })),
    command: async (name: string) => {
      this.commands.push(name)
      if (name === 'migrate') this.says('MIGRATION', { status: 'pre-switchover' })
      if (name === 'migrate-continue') this.says('MIGRATION', { status: 'completed' })
      if (name === 'system_reset') this.says('RESET', { guest: false, reason: 'host-qmp-system-reset' })
      return name === 'query-status' ? { status: 'running' } : {}
    }
  } as unknown as QmpClient
  readonly power = watchResets(
    this.qmp,
    { clock: this.clock, log: { info() {} } },
    { spec: { id: 'pc' } as VmSpec, onReboot: how => void this.told.push([how, this.nowMs]) },
    () => void this.asked++
  )

  says(name: string, data: QmpEvent['data']): void {
    for (const [matches, waiter] of this.#waiters) {
      if (waiter.name !== name || !matches({ name, data })) continue
      this.#waiters.delete(matches)
      waiter.heard({ name, data })
    }
  }

  /** At that time its guest, or who else, does this to it. */
  at(atMs: number, name: 'RESET' | 'SHUTDOWN', guest = true): void {
    this.nowMs = atMs
    this.says(name, { guest, reason: 'it was asked for' })
  }

  cut(stays = false, how = cutDevices) {
    const { clock, power } = this
    const frozen = async () => this.inPause()
    const parts = { path: '/cut', stays, resumesByItself: true, clock, power, frozen }
    return how(this.qmp, { ...parts, stopWanted: () => false, unlessStopped() {} })
  }

  /** What was done to the VM, without questions. */
  get done(): string[] {
    return this.commands.filter(name => !name.startsWith('query'))
  }
}

/** When a reboot was told of a guest that resets its machine at these times. */
function toldOf(resets: readonly number[], guest = true): number[] {
  const watched = new Watched()
  for (const atMs of resets) watched.at(atMs, 'RESET', guest)
  return watched.told.map(([, atMs]) => atMs)
}

describe('a reboot', () => {
  it('is told once, though the BIOS that is begun by it resets by itself', () => {
    expect(toldOf([20_000, 20_300, 21_000, 90_000, 90_250])).toEqual([20_000, 90_000])
  })

  it('is told once of a guest that resets for ever, until it has been calm', () => {
    const forever = Array.from({ length: 500 }, (_, i) => 1_000 + 2_000 * i)
    const calm = 1_000 + 2_000 * 500 + 60_000
    expect(toldOf([...forever, calm])).toEqual([1_000, calm])
  })

  it('is by the guest: a reset from outside is none', () => {
    expect(toldOf([500], false)).toEqual([])
  })
})

describe('a guest that turns itself off', () => {
  it('is told of, asks to boot anew, and does so by a reset', async () => {
    const watched = new Watched()
    expect(await watched.power.bootAnew()).toBe(false)
    watched.at(5_000, 'SHUTDOWN')
    expect([watched.power.off, watched.asked, watched.commands]).toEqual([true, 1, []])
    expect(await watched.power.bootAnew()).toBe(true)
    expect(watched.commands).toEqual(['system_reset', 'cont'])
    expect([watched.power.off, await watched.power.bootAnew()]).toEqual([false, false])
    watched.at(5_300, 'RESET') // the BIOS's own
    expect(watched.told).toEqual([['powered-off', 5_000]])
    watched.at(70_000, 'RESET')
    expect(watched.told.at(-1)).toEqual(['rebooted', 70_000])
  })

  it('boots each time, and is told of once where it does so again and again', () => {
    const watched = new Watched()
    for (let atMs = 0; atMs < 60_000; atMs += 2_000) watched.at(atMs, 'SHUTDOWN')
    expect([watched.asked, watched.told]).toEqual([30, [['powered-off', 0]]])
  })

  it('is none where QEMU is told to quit', () => {
    const watched = new Watched()
    watched.at(5_000, 'SHUTDOWN', false)
    expect([watched.power.off, watched.asked, watched.told]).toEqual([false, 0, []])
  })

  it('boots before it is cut', async () => {
    const watched = new Watched()
    watched.at(1, 'SHUTDOWN')
    await watched.cut()
    expect(watched.done).toEqual(['system_reset', 'cont', 'migrate', 'migrate-continue', 'cont'])
  })

  it.each([false, true])('is not saved where it does so in the cut (which it is to rest after: %s)', async stays => {
    const watched = new Watched()
    watched.inPause = () => watched.at(1, 'SHUTDOWN')
    await expect(watched.cut(stays)).rejects.toMatchObject({ code: 'HYPERVISOR_CUT' })
    // All that was begun is sent, for QEMU would start the VM by itself; then it boots.
    expect(watched.done).toEqual(['migrate', 'migrate-continue', 'system_reset', 'cont'])
    watched.inPause = () => {}
    await watched.cut(stays)
  })

  it('is not saved by a stream of all its RAM either: before, it boots, and is stopped again; in the cut, that is given up', async () => {
    const watched = new Watched()
    watched.at(1, 'SHUTDOWN')
    await watched.cut(true, cutAll)
    expect(watched.done).toEqual(['stop', 'system_reset', 'cont', 'stop', 'migrate'])
    watched.commands.length = 0
    watched.inPause = () => watched.at(2, 'SHUTDOWN')
    await expect(watched.cut(true, cutAll)).rejects.toMatchObject({ code: 'HYPERVISOR_CUT' })
    expect(watched.done).toEqual(['stop', 'system_reset', 'cont'])
  })
})
