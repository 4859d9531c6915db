import { describe, expect, it } from 'vitest'
import { qcow2Blocks } from '../../../node/hypervisor/qcow2.ts'
import { exportDisk } from '../../../node/image/disk-files.ts'
import type { BlockExtent, BlockSource } from '../../../node/ports.ts'

const BLOCK = 4096
const CLUSTER = 65_536

/** Of blocks that hold their number, where they are not zeros; extents of one block each. */
function diskOf(blocks: readonly number[]): BlockSource {
  return {
    bytes: blocks.length * BLOCK,
    read: async (offset, length) => {
      const bytes = new Uint8Array(length)
      for (let at = 0; at < length; at += BLOCK) bytes.fill(blocks[(offset + at) / BLOCK] ?? 0, at, at + BLOCK)
      return bytes
    },
    extents: async (offset, length, most): Promise<readonly BlockExtent[]> => {
      const count = Math.min(most, length / BLOCK)
      return Array.from({ length: count }, (_, i) => ({ length: BLOCK, zero: blocks[offset / BLOCK + i] === 0 }))
    }
  }
}

async function exported(disk: BlockSource): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const part of exportDisk(disk)) parts.push(part.slice())
  return Buffer.concat(parts)
}

/** What a reader of the format finds. */
function blocksIn(file: Buffer): Map<number, number> {
  const found = new Map<number, number>()
  const read = (offset: number, length: number) => file.subarray(offset, offset + length)
  for (const { first, count, bytes } of qcow2Blocks({ bytes: file.length, read })) {
    for (let i = 0; i < count; i++) {
      const content = bytes?.[i * BLOCK] ?? 0
      if (content !== 0) found.set(first + i, content)
    }
  }
  return found
}

describe('an exported disk', () => {
  it('holds each cluster with anything in it once, however its extents lie', async () => {
    const blocks = Array.from({ length: 16 * 200 + 5 }, () => 0)
    for (const block of [0, 3, 15, 16, 17, 47, 48, 1024, 1600, 3199, 3200, 3204]) blocks[block] = 1 + (block % 250)
    const file = await exported(diskOf(blocks))
    const wanted = new Map([...blocks.entries()].filter(([, content]) => content !== 0))
    expect(blocksIn(file)).toEqual(wanted)
    // Header, refcount table and block, L1, L2; clusters 0, 1, 2, 3, 64, 100, 199, 200.
    expect(file.length).toBe((5 + 8) * CLUSTER)
  })

  it('that is empty is tables alone', async () => {
    const file = await exported(diskOf(Array.from({ length: 64 }, () => 0)))
    expect(blocksIn(file).size).toBe(0)
    expect(file.length).toBe(4 * CLUSTER)
  })
})
