/** What streams of images hold: pages and deltas, as somebody seals them who has the key. */
import assert from 'node:assert/strict'
import { PAGE_BYTES } from '../../node/hypervisor/migration-stream.ts'
import { applyDelta, DELTA_EXTENT_BYTES, DeltaBatch, PageDiff, readDeltas } from '../../node/image/delta.ts'
import { openDeltas } from '../../node/image/delta-extents.ts'
import { EXTENT_PAGES, openExtent } from '../../node/image/extents.ts'
import { packBest } from '../../node/image/packing.ts'
import { pack, SALT_BYTES, StreamSeal } from '../../node/image/seal.ts'
import { attempt, type Target } from './target.ts'

const IMAGE = /^IMAGE_INVALID$/
const PAGES = 600
const SEAL = new StreamSeal(new Uint8Array(32).fill(7), 'g/v/1/1', new Uint8Array(SALT_BYTES))

/** `input` is what an extent holds when it has been opened: a way of packing, and what is packed. */
const extent = (input: Uint8Array): string | undefined =>
  attempt(
    IMAGE,
    () => openExtent(SEAL, 3, SEAL.seal('extent', 3, input)),
    pages => {
      assert.ok(pages.length > 0 && pages.length <= EXTENT_PAGES * PAGE_BYTES, `${pages.length} bytes of pages`)
      assert.equal(pages.length % PAGE_BYTES, 0)
    }
  )

/** Numbers as pages have them, and bytes that do not pack. */
const pageOf = (seed: number): Uint8Array => new Uint8Array(PAGE_BYTES).map((_, i) => (i * i * seed) >>> 5)

/** `input` is a delta extent before it is packed and sealed. */
const deltas = (input: Uint8Array): string | undefined =>
  attempt(
    IMAGE,
    () => readDeltas(openDeltas(SEAL, 3, SEAL.seal('delta', 3, packBest(input))), PAGES),
    entries => {
      assert.ok(entries.length > 0 && input.length <= DELTA_EXTENT_BYTES)
      const anchor = pageOf(5)
      for (const entry of entries) {
        assert.ok(entry.page < PAGES, `page ${entry.page}`)
        assert.equal(applyDelta(entry, anchor).length, PAGE_BYTES)
      }
    }
  )

function deltaSeed(): Uint8Array {
  const [batch, diff] = [new DeltaBatch(), new PageDiff()]
  const anchor = new Int32Array(pageOf(3).buffer)
  for (const [page, places] of [[5], [0, 64, 4095], [2000, 2001]].entries()) {
    const bytes = pageOf(3)
    for (const place of places) bytes[place] = (bytes[place] ?? 0) ^ 1
    diff.compare(bytes, anchor, 0)
    batch.add(7 * page, diff, anchor, 0)
  }
  return batch.take().slice()
}

export const extentTargets: readonly Target[] = [
  {
    name: 'extent',
    group: 'images',
    summary: 'pages of an image, sealed by whoever has the key',
    seeds: () => [packBest(pageOf(1)), pack(Buffer.concat([pageOf(0), pageOf(3)])), pack(new Uint8Array(1 << 20))],
    run: extent
  },
  {
    name: 'deltas',
    group: 'images',
    summary: 'what changed in pages of an image',
    seeds: () => [deltaSeed()],
    run: deltas
  }
]
