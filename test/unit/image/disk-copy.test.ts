import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { emptyLayer } from '../../../node/hypervisor/qcow2-layer.ts'
import { copyDisks } from '../../../node/image/disk-copy.ts'
import { placesOf } from '../../../node/image/facts.ts'
import type { DiskFile } from '../../../node/ports.ts'

const MIB = 1 << 20
const PLACES = placesOf({ memoryMiB: 1, disks: [{ blocks: 1024 }, { blocks: 512 }] })

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'disk-copy-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A layer of a disk of 4 MiB (disk 0) or 2 MiB, after these commands of qemu-io. */
function layer(disk: number, name: string, ...commands: string[]): DiskFile {
  const path = join(folder, name)
  const { head, fileBytes } = emptyLayer(disk === 0 ? 4 * MIB : 2 * MIB)
  writeFileSync(path, head)
  truncateSync(path, fileBytes)
  execFileSync('qemu-io', ['-f', 'qcow2', ...commands.flatMap(command => ['-c', command]), path])
  return { disk, path, format: 'qcow2' }
}

/** Page → its first byte, or undefined for zeros; a page twice is an error. */
async function copied(files: readonly DiskFile[]): Promise<Map<number, number | undefined>> {
  const pages = new Map<number, number | undefined>()
  await copyDisks(files, PLACES, {
    page: (page, bytes) => {
      if (pages.has(page)) throw new Error(`page ${page} comes twice`)
      if (bytes) expect(bytes.every(byte => byte === bytes[0])).toBe(true)
      pages.set(page, bytes?.[0])
    },
    congestion: () => undefined
  })
  return pages
}

it('of several layers the newest that holds a block counts, zeros, too', async () => {
  const old = layer(0, 'old', 'write -P 1 0 16k', 'write -P 1 1M 4k')
  const middle = layer(0, 'middle', 'write -P 2 4k 8k')
  const young = layer(0, 'young', 'write -z 8k 4k', 'write -P 3 2M 4k')
  const pages = await copied([old, middle, young])
  const first = 256
  expect([...pages].sort(([a], [b]) => a - b)).toEqual([
    [first, 1],
    [first + 1, 2],
    [first + 2, undefined],
    [first + 3, 1],
    [first + 256, 1],
    [first + 512, 3]
  ])
})

it('disks lie behind RAM, end to end', async () => {
  const pages = await copied([layer(1, 'b', 'write -P 5 0 4k'), layer(0, 'a', 'write -P 4 0 4k')])
  expect([...pages]).toEqual([
    [256, 4],
    [256 + 1024, 5]
  ])
})

it('of a base what is not zero is copied, where no layer holds it', async () => {
  const base = Buffer.alloc(2 * MIB)
  base.fill(7, 8192, 16_384).fill(8, MIB - 4096, MIB + 4096)
  const path = join(folder, 'base')
  writeFileSync(path, base)
  const pages = await copied([{ disk: 0, path, format: 'raw' }, layer(0, 'above', 'write -P 9 8k 4k')])
  expect([...pages].sort(([a], [b]) => a - b)).toEqual([
    [258, 9],
    [259, 7],
    [256 + 255, 8],
    [256 + 256, 8]
  ])
})

it('a file that cannot be read, or is larger than its disk, is told by name', async () => {
  const gone: DiskFile = { disk: 0, path: join(folder, 'gone'), format: 'qcow2' }
  await expect(copied([gone])).rejects.toMatchObject({
    code: 'IMAGE_DISK',
    message: expect.stringContaining(gone.path)
  })
  const large = layer(0, 'large', 'write -P 1 0 4k')
  await expect(copied([{ ...large, disk: 1 }])).rejects.toMatchObject({ code: 'IMAGE_DISK' })
})
