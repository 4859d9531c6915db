import { describe, expect, it } from 'vitest'
import { tellReboots } from '../../node/hypervisor/resets.ts'
import type { VmSpec } from '../../protocols/group.ts'
import type { QmpEvent } from '../../node/hypervisor/qmp-protocol.ts'

/** A machine whose guest, or who else, resets it at these times; when a reboot was told. */
function toldOf(resets: readonly (readonly [atMs: number, guest: boolean])[]): number[] {
  let nowMs = 0
  let hear: (event: QmpEvent) => boolean = () => true
  const told: number[] = []
  const waitEvent = (name: string | readonly string[], matches: typeof hear = hear) => {
    expect(name).toBe('RESET')
    hear = matches
    return new Promise<QmpEvent>(() => {})
  }
  const context = { clock: { now: () => nowMs }, log: { info() {} } }
  const spec = { id: 'pc' } as VmSpec
  tellReboots({ waitEvent }, context, { spec, onReboot: () => void told.push(nowMs) })
  for (const [atMs, guest] of resets) {
    nowMs = atMs
    const event = { name: 'RESET', data: { guest, reason: 'guest-reset' } } as unknown as QmpEvent
    expect(hear(event)).toBe(false) // it goes on to wait
  }
  return told
}

describe('a reboot', () => {
  it('is told once, though the BIOS that is begun by it resets by itself', () => {
    const reboot = [20_000, 20_300, 21_000] as const
    expect(toldOf([...reboot, 90_000, 90_250].map(atMs => [atMs, true]))).toEqual([20_000, 90_000])
  })

  it('is told once of a guest that resets for ever, until it has been calm', () => {
    const forever = Array.from({ length: 500 }, (_, i) => 1_000 + 2_000 * i)
    const calm = 1_000 + 2_000 * 500 + 60_000
    expect(toldOf([...forever, calm].map(atMs => [atMs, true]))).toEqual([1_000, calm])
  })

  it('is by the guest: a reset from outside is none', () => {
    expect(toldOf([[500, false]])).toEqual([])
  })
})
