/** The VM that boots from its disk (`disk.S`): that disk, its specification, and what it prints, as numbers. */
import { execFile } from 'node:child_process'
import { mkdtemp, rm, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { VmSpec } from '../../protocols/group.ts'

const run = promisify(execFile)
const MIB = 2 ** 20

/** A raw image of 1 MiB that has never booted. Needs as and ld (Debian package binutils). */
export async function makeBootDisk(path: string): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'diapause-disk-'))
  try {
    const object = join(folder, 'disk.o')
    await run('as', ['--32', '-o', object, join(import.meta.dirname, 'disk.S')])
    await run('ld', ['-m', 'elf_i386', '-Ttext', '0x7c00', '--oformat', 'binary', '-o', path, object])
    await truncate(path, MIB)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** The least memory that a VM may have: it needs none of it. */
export const bootDiskVm = (path: string): VmSpec => ({
  id: 'pc',
  mac: '52:54:00:d1:00:01',
  memoryMiB: 16,
  disks: [{ sizeMiB: 1, base: { path, format: 'raw' } }]
})

export interface PcReport {
  readonly boots: number
  /** How far it has counted, as RAM and as the disk has it: always the same, or one of them is of another moment. */
  readonly ram: number
  readonly disk: number
}

/** Every whole line in `text`, in order. */
export const parsePc = (text: string): PcReport[] =>
  [...text.matchAll(/PC boots=([0-9a-f]{8}) ram=([0-9a-f]{8}) disk=([0-9a-f]{8})\r\n/g)].map(
    ([, boots = '', ram = '', disk = '']) => ({
      boots: parseInt(boots, 16),
      ram: parseInt(ram, 16),
      disk: parseInt(disk, 16)
    })
  )
