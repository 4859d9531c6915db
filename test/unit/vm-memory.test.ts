import { totalmem } from 'node:os'
import { expect, it } from 'vitest'
import { vmMemoryMiB } from '../../node/host/vm-memory.ts'

it('a host gives to VMs what was said, or most of the memory that it may use itself', () => {
  expect(vmMemoryMiB({ vmMemoryMiB: 1 })).toBe(1)
  const most = vmMemoryMiB({})
  expect(most).toBeGreaterThan(0)
  expect(most * 2 ** 20).toBeLessThanOrEqual(0.85 * totalmem())
})
