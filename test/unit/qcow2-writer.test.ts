/** What is written is checked by QEMU's own tool: it finds no errors, and every byte of the disk. */
import { execFile } from 'node:child_process'
import { mkdtemp, open, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { QCOW2_CLUSTER_BYTES, QCOW2_MAX_BYTES, qcow2Layout } from '../../node/hypervisor/qcow2-writer.ts'

const run = promisify(execFile)
const MIB = 2 ** 20

describe('the writer of qcow2 files', () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'qcow2-'))
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  /** Filled with its number, so that one in another's place shows. */
  function contentOf(cluster: number, diskBytes: number): Buffer {
    const bytes = Buffer.alloc(QCOW2_CLUSTER_BYTES)
    for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE(cluster + 1, at)
    return bytes.fill(0, Math.min(bytes.length, diskBytes - cluster * QCOW2_CLUSTER_BYTES))
  }

  /** The same disk as qcow2, written in one go, and raw. */
  async function make(diskBytes: number, order: readonly number[]): Promise<{ qcow2: string; raw: string }> {
    const [qcow2, raw] = [join(folder, 'disk.qcow2'), join(folder, 'disk.raw')]
    const layout = qcow2Layout(diskBytes, Uint32Array.from(order))
    const out = await open(qcow2, 'w')
    for (const bytes of layout.tables()) await out.write(bytes)
    for (const cluster of order) await out.write(contentOf(cluster, diskBytes))
    await out.close()
    expect((await stat(qcow2)).size).toBe(layout.fileBytes)
    const plain = await open(raw, 'w')
    await plain.truncate(diskBytes)
    for (const cluster of order) {
      const length = Math.min(QCOW2_CLUSTER_BYTES, diskBytes - cluster * QCOW2_CLUSTER_BYTES)
      await plain.write(contentOf(cluster, diskBytes), 0, length, cluster * QCOW2_CLUSTER_BYTES)
    }
    await plain.close()
    return { qcow2, raw }
  }

  test.each([
    ['nothing', 512, []],
    ['the only sector', 512, [0]],
    ['a last cluster that is not whole', 3 * QCOW2_CLUSTER_BYTES + 1536, [3, 1]],
    ['clusters in any order', 64 * MIB, [1000, 3, 4, 5, 1023, 0, 512]],
    ['clusters in several tables', 3 * 512 * MIB, [0, 8191, 8192, 20_000, 24_575]],
    ['a large disk, its last cluster too', 2 ** 41, [2 ** 25 - 1, 0]]
  ] as const)('makes an image that qemu-img finds no fault with: %s', async (_, diskBytes, order) => {
    const { qcow2, raw } = await make(diskBytes, order)
    expect((await run('qemu-img', ['check', '--output=json', qcow2])).stdout).toMatch(/"check-errors": 0/)
    const compared = await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', qcow2, raw])
    expect(compared.stdout).toMatch(/identical/)
    const info = JSON.parse((await run('qemu-img', ['info', '--output=json', qcow2])).stdout) as Record<string, unknown>
    expect(info).toMatchObject({ 'virtual-size': diskBytes, 'cluster-size': QCOW2_CLUSTER_BYTES, format: 'qcow2' })
  })

  test('names more clusters than one refcount block can count', async () => {
    // Sparse: the data is left out, and holes read as zeros.
    const order = Uint32Array.from({ length: 70_000 }, (__, i) => i)
    const layout = qcow2Layout(8192 * MIB, order)
    const file = join(folder, 'large.qcow2')
    const out = await open(file, 'w')
    for (const bytes of layout.tables()) await out.write(bytes)
    await out.truncate(layout.fileBytes)
    await out.close()
    const { stdout } = await run('qemu-img', ['check', '--output=json', file])
    expect(JSON.parse(stdout)).toMatchObject({ 'check-errors': 0, 'allocated-clusters': 70_000 })
    expect(stdout).not.toMatch(/leaks|corruptions/)
    await rm(file)
  })

  test('refuses a size that no disk has, and clusters that are not there', () => {
    for (const bytes of [0, -512, 100, Number.NaN, QCOW2_MAX_BYTES + 512]) {
      expect(() => qcow2Layout(bytes, new Uint32Array(0))).toThrow(expect.objectContaining({ code: 'QCOW2_SIZE' }))
    }
    expect(() => qcow2Layout(MIB, Uint32Array.of(16))).toThrow(TypeError)
    expect(() => qcow2Layout(MIB, Uint32Array.of(3, 3))).toThrow(TypeError)
  })
})
