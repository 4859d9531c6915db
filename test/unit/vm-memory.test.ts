import { tmpdir, totalmem } from 'node:os'
import { expect, test } from 'vitest'
import { vmMemoryMiB } from '../../node/host/vm-memory.ts'

test('a host gives what its config says, else a part of its memory, and of VMs with RAM in a folder no more than that holds', async () => {
  expect(await vmMemoryMiB({ vmMemoryMiB: 1, ramDir: '/nowhere' }, 'dirty')).toBe(1)
  const all = await vmMemoryMiB({ ramDir: '/proc' }, 'portable')
  expect(all).toBeGreaterThan(0)
  expect(all).toBeLessThan(totalmem() / 2 ** 20)
  expect(await vmMemoryMiB({ ramDir: '/proc' }, 'dirty')).toBe(0) // which holds nothing
  expect(await vmMemoryMiB({ ramDir: '/nowhere' }, 'dirty')).toBe(all)
  expect(await vmMemoryMiB({ ramDir: tmpdir() }, 'dirty')).toBeLessThanOrEqual(all)
})
