import { describe, expect, it } from 'vitest'
import { tellOfRestore, tellTime } from '../../node/agents/after-restore.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { GuestAgent } from '../../node/ports.ts'
import type { VmSpec } from '../../protocols/group.ts'

/** A guest whose agent does as `behaves` says; `asked`: what it was asked for and how long that may take. */
function guest(spec: Pick<VmSpec, 'clock' | 'guestAgent'>, behaves: Partial<GuestAgent> = {}) {
  const asked: unknown[] = []
  const events: [string, Record<string, unknown>][] = []
  const agent: GuestAgent = {
    setTime: async (nowMs, timeoutMs) => {
      asked.push(['time', nowMs(), timeoutMs])
      await behaves.setTime?.(nowMs, timeoutMs)
    },
    run: async (words, timeoutMs) => {
      asked.push([...words, timeoutMs])
      return (await behaves.run?.(words, timeoutMs)) ?? 0
    }
  }
  let nowMs = 100
  const clock = { now: () => nowMs++ }
  const report = (kind: string, fields: Record<string, unknown>) => void events.push([kind, fields])
  return { vm: { spec, agent }, deps: { clock, wallMs: () => 1_234, uplink: true, report }, asked, events }
}
const fails = (code: string) => async () => {
  throw new DiapauseError(code, `it failed with ${code}`)
}

describe('a guest that went back to an image', () => {
  it('is told the time and then runs what it is to run', async () => {
    const program = ['/usr/sbin/back', '--now']
    const { vm, deps, asked, events } = guest(
      { guestAgent: { afterRestore: program, timeoutMs: 700 } },
      { run: async () => 4 }
    )
    await tellOfRestore(vm, deps)
    expect(asked).toEqual([
      ['time', 1_234, 700],
      ['/usr/sbin/back', '--now', 700]
    ])
    expect(events).toEqual([
      ['vm.clock-set', { afterMs: 1 }],
      ['vm.guest-told', { program: '/usr/sbin/back', exitCode: 4, tookMs: 1 }]
    ])
  })

  it('keeps its own time where it is to see no gap, and is told of the restore all the same', async () => {
    const { vm, deps, asked } = guest({ clock: 'continue', guestAgent: { afterRestore: ['/b'] } })
    await tellOfRestore(vm, deps)
    await tellTime(vm, deps)
    expect(asked).toEqual([['/b', 30_000]])
  })

  it('is not spoken to where it has no agent', async () => {
    const { vm, deps, asked, events } = guest({})
    await tellOfRestore({ ...vm, agent: undefined }, deps)
    expect([asked, events]).toEqual([[], []])
  })

  it('is told the rest where one thing fails, and what failed is an event', async () => {
    const spec = { guestAgent: { afterRestore: ['/b'] } }
    const { vm, deps, asked, events } = guest(spec, {
      setTime: fails('GUEST_AGENT_SILENT'),
      run: fails('GUEST_AGENT_REFUSED')
    })
    await tellOfRestore(vm, deps)
    expect(asked).toHaveLength(2)
    expect(events).toEqual([
      ['vm.guest-not-told', { what: 'the time', warning: 'it failed with GUEST_AGENT_SILENT' }],
      ['vm.guest-not-told', { what: '/b', warning: 'it failed with GUEST_AGENT_REFUSED' }]
    ])
  })

  it('is no event where it has ended meanwhile', async () => {
    const gone = fails('GUEST_AGENT_GONE')
    const { vm, deps, events } = guest({ guestAgent: { afterRestore: ['/b'] } }, { setTime: gone, run: gone })
    await tellOfRestore(vm, deps)
    expect(events).toEqual([])
  })
})
