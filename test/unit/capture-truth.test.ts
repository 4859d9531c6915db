import { describe, expect, it } from 'vitest'
import { changesBetween, ramAddress } from '../bench/capture-truth.ts'

describe('what changed in RAM', () => {
  it('counts bytes that differ, and pages with at least one', () => {
    const before = Buffer.alloc(4 * 4096, 7)
    const after = Buffer.from(before)
    expect(changesBetween(before, after)).toEqual({ pages: 0, bytes: 0 })
    after[4095] = 1
    after[4096] = 1
    after.fill(9, 3 * 4096)
    expect(changesBetween(before, after)).toEqual({ pages: 3, bytes: 4098 })
  })

  it('finds the guest’s RAM among the mappings of its QEMU by its size', () => {
    const maps = [
      '55d0c0000000-55d0c8000000 r--p 00000000 fe:00 1 /usr/bin/qemu-system-x86_64',
      '7f0000000000-7f0008000000 rw-p 00000000 00:00 0 ',
      '7f0010000000-7f0010021000 rw-p 00000000 00:00 0 '
    ].join('\n')
    expect(ramAddress(maps, 128 << 20)).toBe(0x7f0000000000)
    expect(() => ramAddress(maps, 64 << 20)).toThrow(/0 mappings/)
    expect(() => ramAddress(`${maps}\n7f1000000000-7f1008000000 rw-p 0 0 0`, 128 << 20)).toThrow(/2 mappings/)
  })
})
