/** The VM that runs `counter.c`: its specification, a disk for it, and what it prints, as numbers. */
import { execFile, execFileSync, spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { promisify } from 'node:util'
import type { DiskSpec, VmSpec } from '../../protocols/group.ts'
import { bankAppend, type Guest } from './build.ts'
import { fnv32 } from './console.ts'

/** As in counter.c, unless it is told. */
const RING_SLOTS = 64
const MAGIC = 'diapause-counter'

export interface CounterOptions {
  readonly memoryMiB: number
  /** The first is made by `makeCounterDisk`; the second, if any, is written without a file system. */
  readonly disks: readonly DiskSpec[]
  /** Between two steps; 5,000 unless told. */
  readonly intervalUs?: number
  readonly dataMiB?: number
  /** Of its rings, a power of two; 64 unless told, and no fewer. */
  readonly slots?: number
}

/** Without a NIC. */
export function counterVm(guest: Guest, options: CounterOptions): VmSpec {
  const { memoryMiB, disks, intervalUs = 5_000, dataMiB = 4, slots = RING_SLOTS } = options
  const append = `${bankAppend({ index: 1, total: 1, run: 'counter', intervalUs })} dataMiB=${dataMiB} slots=${slots}`
  return { id: 'counter', memoryMiB, disks, ...guest, append }
}

/** A raw image of `sizeMiB` with ext4 and the files of `folder`. Needs mkfs.ext4 (Debian package e2fsprogs), and no root. */
export async function makeCounterDisk(path: string, sizeMiB: number, folder: string): Promise<void> {
  await promisify(execFile)('mkfs.ext4', ['-q', '-F', '-b', '4096', '-d', folder, path, `${sizeMiB}M`])
}

export interface CounterReport {
  readonly id: number
  readonly kind: string
  readonly ram: number
  readonly synced: number
  /** Slots of its rings that hold another number than they must, and steps that began with one that did. */
  readonly wrong: number
  readonly pages: number
}

const LINE = /(COUNTER id=(\d+) kind=(\w+) ram=(\d+) synced=(\d+) wrong=(\d+) pages=(\d+) error=\d+) sum=([0-9a-f]{8})/g

/** Every whole line in `text`, in order. */
export const parseCounter = (text: string): CounterReport[] =>
  [...text.matchAll(LINE)].flatMap(([, body = '', id, kind = '', ram, synced, wrong, pages, sum = '']) =>
    fnv32(body) === Number.parseInt(sum, 16)
      ? [{ id: Number(id), kind, ram: Number(ram), synced: Number(synced), wrong: Number(wrong), pages: Number(pages) }]
      : []
  )

/** The two numbers that the guest keeps in RAM, and in which page; `ram` may be that page alone. */
export function counterInRam(ram: Buffer): { ram: number; synced: number; page: number } {
  for (let at = ram.indexOf(MAGIC); at >= 0; at = ram.indexOf(MAGIC, at + 1)) {
    // The program's own text holds the word, too, but not at the begin of a page.
    if (at % 4096 !== 0) continue
    const number = (offset: number): number => Number(ram.readBigUInt64LE(at + offset))
    return { ram: number(16), synced: number(24), page: at / 4096 }
  }
  throw new Error('the guest has not begun to count')
}

/** The highest number of a ring; throws where the others are not those before it. */
export function highestOf(ring: Buffer, length = RING_SLOTS): number {
  const slots = Array.from({ length }, (_, slot) => Number(ring.readBigUInt64LE(slot * 4096)))
  const highest = Math.max(...slots)
  for (const [slot, number] of slots.entries()) {
    const wanted = highest - ((highest - slot + length) % length)
    if (number !== Math.max(0, wanted)) throw new Error(`slot ${slot} holds ${number} where the highest is ${highest}`)
  }
  return highest
}

/**
 * A file of an ext4 that was mounted when it was cut. Its journal is replayed, and the file system must be well then; `path`
 * is where the disk is written for that.
 */
export function fileIn(disk: Buffer, path: string, name: string): Buffer {
  writeFileSync(path, disk)
  spawnSync('e2fsck', ['-fy', '-E', 'journal_only', path]) // its status says that it has changed something
  execFileSync('e2fsck', ['-fn', path], { stdio: 'ignore' })
  return execFileSync('debugfs', ['-R', `cat ${name}`, path], {
    stdio: ['ignore', 'pipe', 'ignore'],
    maxBuffer: 1 << 28
  })
}
