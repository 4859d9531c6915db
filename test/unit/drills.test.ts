/** Drills of a peer whose machines, network and clock are a test's: what is refused, what fails, and that all of it is taken away. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { scheduleDrills } from '../../protocols/epoch/drills.ts'
import { parseGroupRecord } from '../../protocols/epoch/messages.ts'
import { removeGroup, takeOver } from '../../protocols/epoch/record.ts'
import { restNow } from '../../protocols/epoch/rest.ts'
import type { DrillSchedule, GroupRecord } from '../../protocols/group.ts'
import { DrillWorld } from './drill-world.ts'

let world: DrillWorld
beforeEach(() => {
  world = new DrillWorld()
})
afterEach(() => {
  if (world.record?.held !== undefined) throw new Error('an epoch is held still')
})

const ends = ['a ends', 'b ends', 'worker ends', 'worker ends', 'nic ends', 'network ends', 'room closes']
const isTakenAway = (calls: readonly string[]): void => {
  for (const end of ends) expect(calls).toContain(end)
  expect(calls.at(-1)).toBe('room closes')
}

describe('a drill', () => {
  test('runs all VMs on a network of its own, and its check when they run', async () => {
    let heldMeanwhile: number | undefined
    world.check = new Promise(resolve => {
      queueMicrotask(() => resolve({ exitCode: 0, output: [] }))
      heldMeanwhile = world.record?.held?.length
    })
    const { failed, vms, epoch, peer } = await world.run({ check: 'count' })
    expect({ failed, epoch, peer }).toEqual({ failed: undefined, epoch: 1, peer: 'oak' })
    expect(heldMeanwhile).toBeUndefined() // before it began
    expect(vms).toEqual(['a', 'b'].map(id => ({ vm: id, runsMs: 0, wholeMs: 0, pagesFaulted: 3, pagesPushed: 5 })))
    expect(world.calls[0]).toBe('drill of bank: a,b,a station')
    expect(world.calls).toContain('nic room/net')
    expect(world.calls).toContain('nic room/a.nic')
    expect(world.about?.networks.map(({ network }) => network)).toEqual(['default', 'uplink'])
    isTakenAway(world.calls)
    expect(world.events).toEqual(['drill.begun', 'drill.passed'])
    expect(world.record?.drills?.last).toMatchObject({ epoch: 1, by: 'me', atMs: 1_000_000 })
    expect(world.told.at(-1)).toBe('epoch 1: 2 of 2 VMs run, 2 have all their memory')
  })

  test('on request leaves no word in the record while a member would not understand it, and is told all the same', async () => {
    world.older = ['elm']
    expect(await world.run()).not.toHaveProperty('failed')
    expect(world.events).toEqual(['drill.begun', 'drill.passed'])
    expect(world.record).not.toHaveProperty('drills')
    world.older = []
    await world.run()
    expect(world.record?.drills?.last).toMatchObject({ epoch: 1 })
  })

  test('holds its epoch while it is read, and no change of the group’s besides', async () => {
    const checked = Promise.withResolvers<{ exitCode: number; output: string[] }>()
    world.check = checked.promise
    const before = world.record
    const drill = world.run({ check: 'count' })
    await world.pass(0)
    expect(world.record?.held).toEqual([{ epoch: 1, images: {}, by: 'me run1 drill 1' }])
    world.commit()
    expect(world.record?.held?.[0]?.images).toEqual(before?.committed?.images)
    checked.resolve({ exitCode: 0, output: [] })
    expect(await drill).toMatchObject({ epoch: 1 })
    expect(world.record).toMatchObject({ generation: before?.generation, owners: before?.owners })
  })

  test.each([
    ['a VM does not start', { vm: 'b', when: 'resume' } as const, 'VM b: no shards'],
    ['a page is not to be had', { vm: 'a', when: 'pages' } as const, 'VM a: a page is lost']
  ])('fails where %s', async (_, failing, failed) => {
    world.failing = failing
    const report = await world.run()
    expect(report.failed).toBe(failed)
    expect(report.vms.find(({ vm }) => vm === failing.vm)?.failed).toBe(failed.slice(6))
    isTakenAway(world.calls)
    expect(world.events).toEqual(['drill.begun', `drill.failed ${failed}`])
    expect(world.record?.drills?.last).toMatchObject({ failed })
  })

  test('fails where its check does, where a VM ends, and where it takes too long', async () => {
    world.check = Promise.resolve({ exitCode: 7, output: ['wrong'] })
    expect(await world.run({ check: 'count' })).toMatchObject({
      check: { command: 'count', exitCode: 7, output: ['wrong'] },
      failed: 'the check ended with exit code 7'
    })
    world.check = Promise.resolve({ exitCode: 127, output: ['sh: 1: cuont: not found'] })
    expect(await world.run({ check: 'cuont' })).toMatchObject({
      untried: true,
      failed: expect.stringContaining('could not be tried')
    })
    world.check = new Promise(() => {})
    const ending = world.run({ check: 'count' })
    await world.pass(0)
    world.exits.get('b')?.('killed by signal 9')
    expect(await ending).toMatchObject({ failed: 'VM b: killed by signal 9' })
    const late = world.run({ check: 'count', timeoutMs: 5_000 })
    await world.pass(5_000)
    expect(await late).toMatchObject({ failed: 'it had not passed after 5 s', tookMs: 5_000 })
    isTakenAway(world.calls)
  })

  test('is given up when whoever asked goes, or the peer stops, and leaves no outcome', async () => {
    world.check = new Promise(() => {})
    const asking = new AbortController()
    const drill = world.run({ check: 'count' }, asking.signal)
    await world.pass(0)
    await expect(world.run()).rejects.toMatchObject({ code: 'DRILL_BUSY' })
    asking.abort()
    await expect(drill).rejects.toMatchObject({ code: 'DRILL_INTERRUPTED' })
    isTakenAway(world.calls)
    const other = world.run({ check: 'count' })
    other.catch(() => {})
    await world.pass(0)
    await world.drills.stop()
    await expect(other).rejects.toMatchObject({ code: 'DRILL_INTERRUPTED' })
    await expect(world.run()).rejects.toMatchObject({ code: 'DRILL_INTERRUPTED' })
    expect(world.record).not.toHaveProperty('drills')
  })

  test('gives way to VMs that are restored on this host, and to no others', async () => {
    world.check = new Promise(() => {})
    const drill = world.run({ check: 'count' })
    await world.pass(0)
    world.change(takeOver(world.record?.generation ?? 0, { a: 'other', b: 'other' }))
    await world.pass(1_000)
    expect(world.calls).not.toContain('room closes')
    world.change(takeOver(world.record?.generation ?? 0, { a: 'other', b: 'me' }))
    await expect(drill).rejects.toMatchObject({
      code: 'DRILL_GAVE_WAY',
      message: /"bank" is being restored on this host/
    })
    isTakenAway(world.calls)
    expect(world.events).toEqual(['drill.begun', expect.stringMatching(/^drill\.interrupted .*comes first/)])
    world.check = Promise.resolve({ exitCode: 0, output: [] })
    expect(await world.run({ check: 'count' })).not.toHaveProperty('failed')
  })

  test('does not give way to a new group of the name of one that is no more: nothing is restored', async () => {
    const till = (generation: number) => ({
      ...(world.record as GroupRecord),
      id: 'till',
      generation,
      owners: { a: 'me' }
    })
    const [old, made, restored] = [till(1), till(3), till(4)] as const
    world.check = new Promise(() => {})
    const drill = world.run({ check: 'count' })
    drill.catch(() => {}) // awaited below
    await world.pass(0)
    world.hear(old)
    world.forget('till')
    world.hear(made)
    await world.pass(1_000)
    expect(world.calls).not.toContain('room closes')
    world.hear(restored)
    await expect(drill).rejects.toThrow(/"till" is being restored on this host/)
  })

  test('is refused where memory is short, where the setting says so, and for what is not there', async () => {
    world.availableMiB = 800 // each VM takes 160 MiB beside its 64
    await expect(world.run()).rejects.toThrow(
      /needs 448 MiB of memory and may have 400 here \(half of what is available\)/
    )
    world.availableMiB = 900
    expect(await world.run()).not.toHaveProperty('failed')
    world = new DrillWorld(400)
    await expect(world.run()).rejects.toMatchObject({ code: 'DRILL_MEMORY', message: /drills\.memoryMiB is 400, 4096/ })
    world = new DrillWorld(5_000)
    world.availableMiB = 447
    await expect(world.run()).rejects.toMatchObject({ code: 'DRILL_MEMORY' })
    await expect(world.run({ epoch: 9 })).rejects.toMatchObject({ code: 'EPOCH_NOT_KEPT' })
    world.change(removeGroup)
    await expect(world.run()).rejects.toMatchObject({ code: 'GROUP_UNKNOWN' })
    expect(world.calls).toEqual([])
  })
})

describe('drills of a schedule', () => {
  const hourly = { everyMs: 3_600_000, timeoutMs: 60_000 }
  const withSchedule = (schedule: DrillSchedule) => (record: GroupRecord | null) =>
    record === null ? undefined : { ...record, version: record.version + 1, drills: { schedule } }
  const begun = (): number => world.events.filter(event => event === 'drill.begun').length

  test('begin soon, and then once an interval', async () => {
    world.change(scheduleDrills({ ...hourly, check: 'books' }))
    await world.pass(20_000)
    expect(world.events).toEqual(['drill.begun', 'drill.passed'])
    expect(world.calls).toContain('check count')
    world.commit()
    await world.pass(hourly.everyMs - 20_000)
    expect(begun()).toBe(1)
    await world.pass(60_000)
    expect(begun()).toBe(2)
    expect(world.record?.drills?.last).toMatchObject({ epoch: 2 })
    world.change(scheduleDrills(undefined))
    await world.pass(3 * hourly.everyMs)
    expect(begun()).toBe(2)
  })

  test('are those of the keeper, who owns the first VM, and end here when that is another', async () => {
    world.check = new Promise(() => {})
    world.change(scheduleDrills({ ...hourly, check: 'books' }))
    await world.pass(20_000)
    expect(begun()).toBe(1)
    world.change(takeOver(world.record?.generation ?? 0, { a: 'other', b: 'other' }))
    await world.pass(1_000)
    isTakenAway(world.calls)
    await world.pass(3 * hourly.everyMs)
    expect(begun()).toBe(1)
    expect(world.record?.drills).toEqual({ schedule: { ...hourly, check: 'books' } }) // for the other to begin
  })

  test('of a group that rests go on while the host of its first VM is dead, and are its own again when it is back', async () => {
    world.change(scheduleDrills(hourly))
    await world.pass(20_000)
    expect(begun()).toBe(1)
    world.change(takeOver(world.record?.generation ?? 0, { a: 'other', b: 'me' }))
    world.change(restNow(world.record?.generation ?? 0))
    await world.pass(3 * hourly.everyMs)
    expect(begun()).toBe(1)
    world.seen.alive = ['me', 'third']
    await world.pass(1_000)
    expect(begun()).toBe(2)
    world.seen.alive = ['me', 'other', 'third']
    await world.pass(3 * hourly.everyMs)
    expect(begun()).toBe(2)
  })

  test('that make way have not failed: they begin again a little later', async () => {
    world.change(scheduleDrills({ ...hourly, check: 'books' }))
    await world.pass(20_000)
    const { drills } = world.record ?? {}
    world.check = new Promise(() => {})
    await world.pass(hourly.everyMs)
    expect(begun()).toBe(2)
    world.change(takeOver(world.record?.generation ?? 0, { a: 'me', b: 'me' }))
    await world.pass(0)
    expect(world.record?.drills).toEqual(drills)
    expect(world.events.slice(2)).toEqual(['drill.begun', expect.stringMatching(/^drill\.interrupted /)])
    world.check = Promise.resolve({ exitCode: 0, output: [] })
    world.commit() // no change of the group's makes it come sooner
    await world.pass(59_000)
    expect(begun()).toBe(2)
    await world.pass(1_000)
    expect(begun()).toBe(3)
    expect(world.events.at(-1)).toBe('drill.passed')
  })

  test('fail loudly where this peer cannot run them, and come again when they are due', async () => {
    world.change(scheduleDrills({ ...hourly, check: 'unheard-of' }))
    await world.pass(20_000)
    expect(world.events).toEqual([expect.stringMatching(/^drill\.failed this peer has no check "unheard-of"/)])
    world.change(scheduleDrills(hourly))
    world.availableMiB = 100
    await world.pass(hourly.everyMs)
    expect(world.events.at(-1)).toMatch(/drill\.failed A drill of group "bank" needs 448 MiB/)
    world.availableMiB = 4_000
    await world.pass(hourly.everyMs)
    expect(world.record?.drills?.last).not.toHaveProperty('failed')
  })

  test.each(['touch owned', 'count; touch owned', 'constructor', '__proto__'])(
    'run no command that stands in the record: it names one of this peer’s own (%s)',
    async check => {
      const withCheck = (name: string) => withSchedule({ ...hourly, check: name })(world.record)
      expect(() => parseGroupRecord(withCheck('books'))).not.toThrow()
      const record = withCheck(check)
      if (check.includes(' ')) expect(() => parseGroupRecord(record)).toThrow() // nor would a member be heard that wrote it
      world.change(() => record)
      await world.pass(20_000)
      expect(world.calls.filter(call => call.startsWith('check '))).toEqual([])
      expect(world.events).toEqual([
        `drill.failed this peer has no check "${check}": put it under [drills.checks] of its config`
      ])
    }
  )

  test('wait for one that somebody has asked for', async () => {
    const checked = Promise.withResolvers<{ exitCode: number; output: string[] }>()
    world.check = checked.promise
    const asked = world.run({ check: 'count', timeoutMs: 600_000 })
    world.change(scheduleDrills(hourly))
    await world.pass(60_000)
    expect(begun()).toBe(1)
    checked.resolve({ exitCode: 0, output: [] })
    await asked
    await world.pass(1_000)
    expect(begun()).toBe(2)
  })

  test('that nobody has ended are told of: by the next run of the peer, or the next owner', async () => {
    const schedule = { ...hourly, begunMs: 999_000, runs: 'me run0' }
    world.change(withSchedule(schedule))
    await world.pass(1_000)
    expect(world.record?.drills?.last?.failed).toMatch(/ended over it/)
    world.change(withSchedule({ ...schedule, runs: 'x y' }))
    await world.pass(1_000)
    expect(world.record?.drills?.schedule).toHaveProperty('runs')
    world.alive = false
    world.commit()
    await world.pass(1_000)
    expect(world.record?.drills?.last).toMatchObject({
      by: 'x',
      failed: expect.stringMatching(/ended over it/) as string
    })
  })
})
