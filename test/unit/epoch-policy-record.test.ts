import { expect, test } from 'vitest'
import { type EpochPolicy, policySchema } from '../../config/policy.ts'
import { parseGroupRecord } from '../../protocols/epoch/messages.ts'
import { setPolicy } from '../../protocols/epoch/policy.ts'
import { createGroup } from '../../protocols/epoch/record.ts'

const vm = { id: 'a', mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' }
const policy: EpochPolicy = { kind: 'adaptive', overheadPercent: 3, lossMs: 9_000, atLeastMs: 500, atMostMs: 60_000 }

test('a group has the policy of its definition, can be given another one, and can be left to the config again', () => {
  const made = createGroup('g', [vm], { a: 'p1' }, 0, { policy })(null)
  expect(made?.policy).toEqual(policy)
  const other = setPolicy({ kind: 'interval', everyMs: 500 })(made ?? null)
  expect(other).toMatchObject({ version: 2, policy: { kind: 'interval', everyMs: 500 } })
  const none = setPolicy(undefined)(other ?? null)
  expect(none).toMatchObject({ version: 3 })
  expect(Object.keys(none ?? {})).not.toContain('policy')
  for (const record of [made, other, none]) expect(parseGroupRecord(record)).toEqual(record)
})

test('a policy that it has already changes nothing, and neither does one for a group that is no more', () => {
  const made = createGroup('g', [vm], { a: 'p1' }, 0, { policy })(null) ?? null
  expect(setPolicy({ ...policy })(made)).toBeUndefined()
  expect(setPolicy(policy)(null)).toBeUndefined()
  expect(setPolicy(undefined)(made && { ...made, removed: true })).toBeUndefined()
})

test('a record is read whose pattern and time zone this version does not know, though nobody may set them here', () => {
  const windows = [{ cron: '@weekdays', everyMs: 1_000 }]
  const strange = { kind: 'windows', windows, otherwiseMs: 0, timeZone: 'Mars/Olympus' } as const
  const made = createGroup('g', [vm], { a: 'p1' }, 0, { policy: strange })(null)
  expect(parseGroupRecord(made)).toEqual(made)
  expect(policySchema.safeParse(strange).success).toBe(false)
})
