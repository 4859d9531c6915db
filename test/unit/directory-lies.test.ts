/** What a member can make others know of groups by telling it, without a register that says so. */
import { expect, test } from 'vitest'
import { GroupDirectory } from '../../node/agents/directory.ts'
import type { EpochMessage } from '../../protocols/epoch/messages.ts'
import { type GroupRecord, groupKey } from '../../protocols/group.ts'
import { aGroup, aVm } from './group-records.ts'
import { JumpingClock } from './jumping-clock.ts'
import { memoryLog } from './store-support.ts'

/** A peer whose voters have `chosen`, and answer when `answer` is called; `tells` is what a member says to it. */
function peer(chosen: readonly GroupRecord[] = []) {
  const clock = new JumpingClock()
  const heard: string[] = []
  const asked: string[] = []
  const waiting: (() => void)[] = []
  let tell: (from: string, message: EpochMessage) => void = () => {}
  const read = async (key: string): Promise<unknown> => {
    asked.push(key)
    await new Promise<void>(resolve => waiting.push(resolve))
    return chosen.find(({ id }) => groupKey(id) === key) ?? null
  }
  const directory = new GroupDirectory({
    self: 'self',
    members: () => ['self', 'liar', 'ash'],
    floor: () => 10,
    bus: { on: (_: string, __: unknown, handler: typeof tell) => void (tell = handler), send: () => true },
    transport: { onConnection() {} },
    registers: { read },
    clock,
    random: () => 0,
    log: memoryLog()
  } as unknown as ConstructorParameters<typeof GroupDirectory>[0])
  directory.onRecord(({ id, version }) => heard.push(`${id} ${version}`))
  return {
    clock,
    directory,
    heard,
    asked,
    tells: (record: GroupRecord, from = 'liar') => tell(from, { kind: 'record', record }),
    async answer(): Promise<void> {
      for (const resolve of waiting.splice(0)) resolve()
      await new Promise(resolve => setTimeout(resolve))
    }
  }
}

const version = (id: string, at: number): GroupRecord =>
  aGroup({ id, version: at, vms: [aVm('vm1')], owners: { vm1: 'ash' } })

test('of a group that is known is believed where it is newer, whoever says it', async () => {
  const { directory, heard, asked, tells, answer } = peer([version('shop', 11)])
  void directory.refresh('shop')
  await answer()
  tells(version('shop', 10))
  tells({ ...version('shop', 12), generation: 7, owners: { vm1: 'liar' } })
  expect(heard).toEqual(['shop 11', 'shop 12'])
  expect(directory.get('shop')?.owners).toEqual({ vm1: 'liar' })
  expect(asked).toHaveLength(1)
})

test('of a group that is known is not believed far ahead of its register, in one step or many: that is read, and outlives the lie', async () => {
  const chosen = [version('shop', 11)]
  const { directory, asked, tells, answer } = peer(chosen)
  void directory.refresh('shop')
  await answer()
  tells(version('shop', Number.MAX_SAFE_INTEGER))
  expect(asked).toHaveLength(2)
  await answer()
  expect(directory.get('shop')?.version).toBe(11)
  for (let at = 500; at <= 5_000; at += 500) {
    tells(version('shop', at))
    await answer()
  }
  expect(directory.get('shop')?.version).toBe(1_000)
  chosen[0] = version('shop', 1_012)
  tells(version('shop', 1_012), 'ash')
  await answer()
  expect(directory.get('shop')?.version).toBe(1_012)
})

test('of a group that went on for long while a peer heard nothing costs it one read of the register', async () => {
  const chosen = [version('shop', 11)]
  const { directory, heard, asked, tells, answer } = peer(chosen)
  void directory.refresh('shop')
  await answer()
  chosen[0] = version('shop', 9_000)
  for (const from of ['ash', 'liar', 'ash']) tells(version('shop', 9_000), from)
  await answer()
  await answer()
  tells(version('shop', 9_001), 'ash')
  expect(heard).toEqual(['shop 11', 'shop 9000', 'shop 9001'])
  expect(asked).toHaveLength(2)
})

test('of a group that is known and was forgotten meanwhile ends it, however far ahead it is told of', async () => {
  const chosen = [version('shop', 9)]
  const { directory, heard, tells, answer } = peer(chosen)
  void directory.refresh('shop')
  await answer()
  chosen.length = 0
  tells({ ...version('shop', 9_000), removed: true }, 'ash')
  await answer()
  expect(directory.all()).toEqual([])
  expect(heard).toEqual(['shop 9', 'shop 10'])
})

test('of a group that nobody has made is believed by nobody, and so many are asked about a second and no more', async () => {
  const { clock, directory, heard, asked, tells, answer } = peer([version('shop', 11)])
  for (let i = 0; i < 1_000; i++) tells(version(`made-up-${i}`, 1_000))
  tells(version('shop', 9_000), 'ash')
  expect(asked).toHaveLength(65)
  await answer()
  expect(heard).toEqual(['shop 11'])
  expect(directory.all()).toHaveLength(1)
  clock.nowMs += 1_000
  tells(version('made-up-999', 1_000))
  expect(asked).toHaveLength(66)
})

test('of one unknown group asks its register once, however many tell of it, until it has answered', async () => {
  const { directory, asked, tells, answer } = peer([version('shop', 11)])
  for (const from of ['liar', 'ash', 'liar']) tells(version('shop', 11), from)
  expect(asked).toEqual([groupKey('shop')])
  await answer()
  expect(directory.get('shop')?.version).toBe(11)
  tells(version('gone', 3), 'ash')
  await answer()
  tells(version('gone', 3), 'ash')
  expect(asked).toEqual(['shop', 'gone', 'gone'].map(groupKey))
})

test('of an unknown group, a newer version that is told of while its register is read is not missed', async () => {
  const chosen = [version('shop', 11)]
  const { directory, asked, tells, answer } = peer(chosen)
  tells(version('shop', 11))
  tells(version('shop', 12), 'ash')
  await answer()
  expect(asked).toHaveLength(2)
  await answer()
  expect(directory.get('shop')?.version).toBe(11) // who told of 12 lied, and nobody asks a third time
  expect(asked).toHaveLength(2)
})

test('of a group that was removed and forgotten makes nobody ask', () => {
  const { asked, tells } = peer()
  tells({ ...version('old', 10), removed: true })
  expect(asked).toEqual([])
})
