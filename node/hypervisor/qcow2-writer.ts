/**
 * A qcow2 image (version 3, clusters of 64 KiB) written from begin to end without seeking, where it is known beforehand
 * which clusters are allocated:
 *
 *     header | refcount table | refcount blocks | L1 table | L2 tables | data clusters, in the order given
 *
 * Each part begins at a cluster. Every cluster of the file is used once (refcount 1, bit COPIED), those of the guest that are
 * not allocated read as zeros. Numbers are big-endian. Source: docs/interop/qcow2.txt of QEMU. Pure.
 */
import { UsageError } from '../errors.ts'

const CLUSTER_BITS = 16
export const QCOW2_CLUSTER_BYTES = 1 << CLUSTER_BITS
const MAGIC = 0x514649fb
const VERSION = 3
const HEADER_BYTES = 104
/** Refcounts of 16 bits. */
const REFCOUNT_ORDER = 4
const REFCOUNTS_PER_BLOCK = QCOW2_CLUSTER_BYTES / 2
const ENTRIES_PER_TABLE = QCOW2_CLUSTER_BYTES / 8
/** "Refcount is exactly one": of entries in L1 and L2. */
const COPIED = 0x8000_0000
/** 4 TiB: its map of clusters takes 256 MiB. A guess at what anybody wants. */
export const QCOW2_MAX_BYTES = 2 ** 42

export interface Qcow2Layout {
  /** Of the whole file. */
  readonly fileBytes: number
  /** All before the data, in pieces of one cluster. */
  tables(): Generator<Uint8Array>
}

/**
 * The layout of a disk of `diskBytes` (a multiple of 512) whose guest clusters `order` are allocated, in the order in which
 * they will be written behind the tables, each QCOW2_CLUSTER_BYTES long; what lies behind the disk's end is zeros there.
 * UsageError QCOW2_SIZE.
 */
export function qcow2Layout(diskBytes: number, order: Uint32Array): Qcow2Layout {
  if (!(diskBytes > 0 && diskBytes <= QCOW2_MAX_BYTES && diskBytes % 512 === 0)) {
    throw new UsageError('QCOW2_SIZE', `a disk of ${diskBytes} bytes cannot be written as qcow2`)
  }
  const guestClusters = Math.ceil(diskBytes / QCOW2_CLUSTER_BYTES)
  const { used, places } = l2TablesOf(guestClusters, order)
  const l1Clusters = Math.ceil(places.length / ENTRIES_PER_TABLE)
  const { tableClusters, blocks } = refcountsFor(1 + l1Clusters + used + order.length)
  const l1At = 1 + tableClusters + blocks
  const l2At = l1At + l1Clusters
  const dataAt = l2At + used
  const clusters = dataAt + order.length
  return {
    fileBytes: clusters * QCOW2_CLUSTER_BYTES,
    *tables() {
      yield header({ diskBytes, tableClusters, l1At, l1Size: places.length })
      yield* pointers(tableClusters, blocks, block => 1 + tableClusters + block)
      for (let block = 0; block < blocks; block++) yield refcounts(clusters - block * REFCOUNTS_PER_BLOCK)
      yield* pointers(l1Clusters, places.length, i => copied(l2At, places[i] ?? 0))
      const ordinals = new Uint32Array(guestClusters)
      for (const [i, cluster] of order.entries()) ordinals[cluster] = i + 1
      for (const [table, place] of places.entries()) {
        if (place === 0) continue
        const first = table * ENTRIES_PER_TABLE
        yield* pointers(1, ENTRIES_PER_TABLE, i => copied(dataAt, ordinals[first + i] ?? 0))
      }
    }
  }
}

/** How many L2 tables are needed, and of each that could be its place among them from 1, or 0. */
function l2TablesOf(guestClusters: number, order: Uint32Array): { used: number; places: Uint32Array } {
  const places = new Uint32Array(Math.ceil(guestClusters / ENTRIES_PER_TABLE))
  const seen = new Uint8Array(guestClusters)
  for (const cluster of order) {
    if (cluster >= guestClusters || seen[cluster] === 1)
      throw new TypeError(`cluster ${cluster} comes twice or behind the end`)
    seen[cluster] = 1
    places[Math.floor(cluster / ENTRIES_PER_TABLE)] = 1
  }
  let used = 0
  for (let table = 0; table < places.length; table++) if (places[table] === 1) places[table] = ++used
  return { used, places }
}

/** Clusters of the refcount table, and the blocks that it names, which count themselves, the table and `others`. */
function refcountsFor(others: number): { tableClusters: number; blocks: number } {
  for (let tableClusters = 1, blocks = 1; ; ) {
    const needed = Math.ceil((others + tableClusters + blocks) / REFCOUNTS_PER_BLOCK)
    const table = Math.ceil(needed / ENTRIES_PER_TABLE)
    if (needed <= blocks && table <= tableClusters) return { tableClusters, blocks }
    blocks = Math.max(blocks, needed)
    tableClusters = Math.max(tableClusters, table)
  }
}

function header(at: { diskBytes: number; tableClusters: number; l1At: number; l1Size: number }): Uint8Array {
  const out = Buffer.alloc(QCOW2_CLUSTER_BYTES)
  out.writeUInt32BE(MAGIC, 0)
  out.writeUInt32BE(VERSION, 4)
  out.writeUInt32BE(CLUSTER_BITS, 20) // no backing file before it
  out.writeBigUInt64BE(BigInt(at.diskBytes), 24)
  out.writeUInt32BE(at.l1Size, 36) // no encryption before it
  out.writeBigUInt64BE(BigInt(at.l1At * QCOW2_CLUSTER_BYTES), 40)
  out.writeBigUInt64BE(BigInt(QCOW2_CLUSTER_BYTES), 48) // the refcount table, behind the header
  out.writeUInt32BE(at.tableClusters, 56)
  out.writeUInt32BE(REFCOUNT_ORDER, 96) // no snapshots and no features before it
  out.writeUInt32BE(HEADER_BYTES, 100)
  return out
}

/** Clusters with `count` entries of 8 bytes, each the number of a cluster (with COPIED in its high half), or 0. */
function* pointers(clusters: number, count: number, entry: (index: number) => number): Generator<Uint8Array> {
  for (let cluster = 0; cluster < clusters; cluster++) {
    const out = Buffer.alloc(QCOW2_CLUSTER_BYTES)
    const first = cluster * ENTRIES_PER_TABLE
    for (let i = 0; i < ENTRIES_PER_TABLE && first + i < count; i++) {
      const value = entry(first + i)
      if (value === 0) continue
      const offset = Math.abs(value) * QCOW2_CLUSTER_BYTES
      out.writeUInt32BE((Math.floor(offset / 2 ** 32) + (value < 0 ? COPIED : 0)) >>> 0, 8 * i)
      out.writeUInt32BE(offset % 2 ** 32, 8 * i + 4)
    }
    yield out
  }
}

/** The cluster number `ordinal` (from 1) of those from `first` on, as one that is used once: negative. 0 stays 0. */
const copied = (first: number, ordinal: number): number => (ordinal === 0 ? 0 : -(first + ordinal - 1))

/** A refcount block of which the first `clusters` are used. */
function refcounts(clusters: number): Uint8Array {
  const out = Buffer.alloc(QCOW2_CLUSTER_BYTES)
  for (let i = 0; i < Math.min(clusters, REFCOUNTS_PER_BLOCK); i++) out.writeUInt16BE(1, 2 * i)
  return out
}
