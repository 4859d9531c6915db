/** qcow2 files: a base is somebody else's, a layer may be torn. */
import assert from 'node:assert/strict'
import { deflateRawSync, zstdCompressSync } from 'node:zlib'
import { BLOCK_BYTES, qcow2Blocks } from '../../node/hypervisor/qcow2.ts'
import { emptyLayer, LAYER_CLUSTER_BYTES } from '../../node/hypervisor/qcow2-layer.ts'
import { attempt, type Target } from './target.ts'

const DISK_BYTES = 8 << 20
/** The first 2 MiB of the disk are described by the L2 table that follows an empty layer's four clusters. */
const L2_AT = 4 * LAYER_CLUSTER_BYTES

/** A layer with data, zeros and a packed cluster. */
function layer(compression: 'deflate' | 'zstd'): Uint8Array {
  const { head, fileBytes } = emptyLayer(DISK_BYTES)
  const file = Buffer.alloc(fileBytes + 4 * LAYER_CLUSTER_BYTES)
  file.set(head)
  if (compression === 'zstd') {
    file[79] = 8 // the incompatible feature "compression type"
    file[103] = 112 // the header is longer by that type
    file[104] = 1
  }
  file.writeBigUInt64BE(BigInt(L2_AT) | (1n << 63n), 3 * LAYER_CLUSTER_BYTES)
  const entry = (index: number, value: bigint) => file.writeBigUInt64BE(value, L2_AT + index * 8)
  const data = L2_AT + LAYER_CLUSTER_BYTES
  entry(3, BigInt(data) | (1n << 63n))
  entry(4, BigInt(data + LAYER_CLUSTER_BYTES) | (1n << 63n))
  entry(9, 1n)
  file.fill(7, data, data + 2 * LAYER_CLUSTER_BYTES)
  const plain = new Uint8Array(LAYER_CLUSTER_BYTES).fill(3)
  const packed = compression === 'zstd' ? zstdCompressSync(plain) : deflateRawSync(plain)
  const at = data + 2 * LAYER_CLUSTER_BYTES
  file.set(packed, at)
  entry(511, BigInt(at) | (1n << 62n))
  return file
}

/** Runs come in the order of the disk, within it, and do not overlap. */
function qcow2(input: Uint8Array): string | undefined {
  const read = (offset: number, length: number): Uint8Array => {
    assert.ok(offset >= 0 && length >= 0 && offset + length <= input.length, `${length} bytes at ${offset}`)
    return input.subarray(offset, offset + length)
  }
  return attempt(/^QCOW2_(INVALID|UNSUPPORTED|LIMIT)$/, () => {
    let end = 0
    for (const { first, count, bytes } of qcow2Blocks({ bytes: input.length, read }, { maxBytes: DISK_BYTES })) {
      assert.ok(first >= end && count > 0, `a run at ${first}, after one that ends at ${end}`)
      end = first + count
      assert.ok(end * BLOCK_BYTES <= DISK_BYTES, `a run to ${end}`)
      if (bytes) assert.equal(bytes.length, count * BLOCK_BYTES)
    }
  })
}

export const diskTargets: readonly Target[] = [
  {
    name: 'qcow2',
    group: 'images',
    summary: "a disk's base, or a layer of it",
    seeds: () => [layer('deflate'), layer('zstd')],
    run: qcow2
  }
]
