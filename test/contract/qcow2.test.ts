/** The reader of qcow2 files, and the empty layers made here, against qemu-img on random images. */
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { BLOCK_BYTES, qcow2Blocks, type Qcow2Source, readQcow2Header } from '../../node/hypervisor/qcow2.ts'
import { emptyLayer } from '../../node/hypervisor/qcow2-layer.ts'
import { generator } from '../sim/kernel.ts'

const MIB = 1 << 20

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'qcow2-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const qemuImg = (...args: string[]): string => execFileSync('qemu-img', args, { encoding: 'utf8' })
/** Commands of qemu-io on an image. */
const qemuIo = (path: string, commands: readonly string[]): string =>
  execFileSync('qemu-io', ['-f', 'qcow2', ...commands.flatMap(command => ['-c', command]), path], { encoding: 'utf8' })

function reading<T>(path: string, use: (source: Qcow2Source) => T): T {
  const fd = openSync(path, 'r')
  try {
    // The same memory again and again: what is kept of it would show.
    const buffer = Buffer.alloc(4 * MIB)
    const read = (offset: number, length: number) => {
      expect(readSync(fd, buffer, 0, length, offset)).toBe(length)
      return buffer.subarray(0, length)
    }
    return use({ bytes: fstatSync(fd).size, read })
  } finally {
    closeSync(fd)
  }
}

/** The disk as the reader tells it over `below`. */
function contentOf(path: string, below: Buffer): Buffer {
  return reading(path, source => {
    const { diskBytes } = readQcow2Header(source)
    const disk = Buffer.alloc(Math.ceil(diskBytes / BLOCK_BYTES) * BLOCK_BYTES)
    below.copy(disk)
    for (const { first, count, bytes } of qcow2Blocks(source)) {
      if (bytes) expect(bytes.length).toBe(count * BLOCK_BYTES)
      disk.set(bytes ?? Buffer.alloc(count * BLOCK_BYTES), first * BLOCK_BYTES)
    }
    return disk.subarray(0, diskBytes)
  })
}

function rawOf(path: string): Buffer {
  const raw = `${path}.raw`
  qemuImg('convert', '-O', 'raw', path, raw)
  return readFileSync(raw)
}

/** Writes, zeros and discards at random places. */
function randomWrites(random: () => number, diskBytes: number, count: number): string[] {
  return Array.from({ length: count }, () => {
    const length = Math.min(diskBytes, (1 + Math.floor(random() ** 3 * 400)) * 512)
    const offset = Math.floor((random() * (diskBytes - length)) / 512) * 512
    const kind = random()
    if (kind < 0.7) return `write -P ${1 + Math.floor(random() * 255)} ${offset} ${length}`
    return `${kind < 0.85 ? 'write -z' : 'discard'} ${offset} ${length}`
  })
}

describe('qcow2 files', () => {
  const kinds = [
    'cluster_size=4096',
    'cluster_size=4096,compat=0.10',
    'cluster_size=65536',
    'cluster_size=65536,compat=0.10',
    'cluster_size=2097152',
    'cluster_size=65536,lazy_refcounts=on,refcount_bits=1',
    'cluster_size=8192,preallocation=metadata'
  ]
  it.each(kinds)('of kind %s read as qemu-img converts them', kind => {
    const random = generator(kinds.indexOf(kind) + 1)
    for (const diskBytes of [5 * MIB, 3 * MIB + 512]) {
      const path = join(folder, `random-${kinds.indexOf(kind)}-${diskBytes}`)
      qemuImg('create', '-q', '-f', 'qcow2', '-o', kind, path, String(diskBytes))
      qemuIo(path, randomWrites(random, diskBytes, 60))
      expect(contentOf(path, Buffer.alloc(0)).equals(rawOf(path))).toBe(true)
    }
  })

  it.each(['zlib', 'zstd'])('with clusters packed by %s read as qemu-img converts them', compression => {
    const random = generator(7)
    const plain = join(folder, `plain-${compression}`)
    qemuImg('create', '-q', '-f', 'qcow2', plain, String(6 * MIB))
    qemuIo(plain, randomWrites(random, 6 * MIB, 60))
    for (const clusterBytes of [4096, 65_536]) {
      const packed = join(folder, `packed-${compression}-${clusterBytes}`)
      const options = `cluster_size=${clusterBytes},compression_type=${compression}`
      qemuImg('convert', '-c', '-O', 'qcow2', '-o', options, plain, packed)
      expect(contentOf(packed, Buffer.alloc(0)).equals(rawOf(plain))).toBe(true)
    }
  })

  it('tell what they hold over what lies below, also zeros', () => {
    const random = generator(11)
    const [below, above] = [join(folder, 'below'), join(folder, 'above')]
    qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4096', below, String(4 * MIB))
    qemuIo(below, ['write -P 17 0 4M'])
    qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4096', '-b', below, '-F', 'qcow2', above)
    qemuIo(above, randomWrites(random, 4 * MIB, 80))
    expect(contentOf(above, rawOf(below)).equals(rawOf(above))).toBe(true)
    expect(reading(above, source => readQcow2Header(source).hasBacking)).toBe(true)
  })

  it('are not read where nobody wants their blocks', () => {
    const path = join(folder, 'wanted')
    qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4096', path, String(4 * MIB))
    qemuIo(path, ['write -P 1 0 64k'])
    const runs = reading(path, source => [...qcow2Blocks(source, { wanted: block => block === 3 || block === 9 })])
    expect(runs.map(({ first, count }) => [first, count])).toEqual([
      [3, 1],
      [9, 1]
    ])
  })

  it.each([
    // Not LUKS, for which qemu-img measures how fast this processor is, and fails on a busy one; that is the next test.
    ['encryption', ['-o', 'encrypt.format=aes,encrypt.key-secret=s', '--object', 'secret,id=s,data=x']],
    ['extended L2 entries', ['-o', 'extended_l2=on,cluster_size=65536']],
    ['an external data file', ['-o', 'data_file=data']],
    ['clusters of 2^9 bytes', ['-o', 'cluster_size=512']]
  ])('with %s are refused, and it is said why', (what, options) => {
    const path = join(folder, 'refused')
    const args = options.map(option => option.replace('data_file=data', `data_file=${join(folder, 'refused.data')}`))
    qemuImg('create', '-q', '-f', 'qcow2', ...args, path, '1M')
    const read = () => reading(path, source => readQcow2Header(source))
    expect(read).toThrow(expect.objectContaining({ code: 'QCOW2_UNSUPPORTED' }))
    expect(read).toThrow(what)
  })

  it('with encryption by LUKS are refused', () => {
    const path = join(folder, 'encrypted')
    qemuImg('create', '-q', '-f', 'qcow2', path, '1M')
    const bytes = readFileSync(path)
    bytes.writeUInt32BE(2, 32) // crypt_method: LUKS
    const source = { bytes: bytes.length, read: (at: number, length: number) => bytes.subarray(at, at + length) }
    expect(() => readQcow2Header(source)).toThrow('encryption')
  })

  it('are refused where their disk is larger than it may be', () => {
    const path = join(folder, 'large')
    qemuImg('create', '-q', '-f', 'qcow2', path, '8M')
    const read = () => reading(path, source => readQcow2Header(source, 4 * MIB))
    expect(read).toThrow(expect.objectContaining({ code: 'QCOW2_LIMIT' }))
  })
})

describe('an empty layer', () => {
  it.each([1, 3, 64, 4097, 1 << 20])('of a disk of %i MiB is one that qemu-img finds no fault with', sizeMiB => {
    const path = join(folder, `empty-${sizeMiB}`)
    const { head, fileBytes } = emptyLayer(sizeMiB * MIB)
    writeFileSync(path, head)
    truncateSync(path, fileBytes)
    expect(qemuImg('check', path)).toMatch(/No errors/)
    const info = JSON.parse(qemuImg('info', '--output=json', path)) as Record<string, unknown>
    expect(info).toMatchObject({ 'virtual-size': sizeMiB * MIB, 'cluster-size': 4096, format: 'qcow2' })
    expect(reading(path, source => [...qcow2Blocks(source)])).toEqual([])
    qemuIo(path, ['write -P 5 512k 300k'])
    expect(qemuImg('check', path)).toMatch(/No errors/)
    const runs = reading(path, source => [...qcow2Blocks(source)].map(({ first, count }) => [first, count]))
    expect(runs).toEqual([[128, 75]])
  })
})
