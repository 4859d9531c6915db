/** Images of epochs that are kept: each is whole in a bounded number of streams, and none is a difference to another. */
import { hash } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { PageState } from '../../../node/image/page-state.ts'
import type { PageStream, PageTable } from '../../../node/image/page-table.ts'
import { MAX_STREAMS } from '../../../node/image/stream-choice.ts'
import { type DatedEpoch, epochsToKeep } from '../../../node/planning/retention-policy.ts'

const PAGES = 300
const HOLDERS = ['a', 'b']
const EPOCH_MS = 10 * 60_000
const POLICY = { keepLast: 3, hourly: 4, daily: 3, weekly: 2 }

interface Kept extends DatedEpoch {
  readonly table: PageTable
  readonly ram: readonly number[]
}

/** A VM whose every epoch is kept as the policy says. */
class KeptVm {
  readonly state = new PageState(PAGES)
  kept: Kept[] = []
  ram = Array.from({ length: PAGES }, (_, page) => page + 1)
  /** Stream and locator → content. */
  readonly #written = new Map<string, number>()
  #epoch = 0

  take(changed: readonly number[]): void {
    const epoch = ++this.#epoch
    this.ram = this.ram.map((content, page) => (changed.includes(page) ? 1000 * epoch + page : content))
    this.state.begin(epoch, { holders: HOLDERS, m: 1 })
    let count = 0
    for (const [page, content] of this.ram.entries()) {
      if (this.state.data(page, hash('sha256', `${page} ${content}`, 'binary')) === 'kept') continue
      this.#written.set(`${epoch} ${count}`, content)
      this.state.place(page, count++)
    }
    this.state.endPages()
    this.state.complete(streamOf(epoch, count))
    if (!this.state.commit(epoch)) throw new Error(`epoch ${epoch} was not committed`)
    const all = [...this.kept, { epoch, wallMs: epoch * EPOCH_MS, table: this.state.committed, ram: this.ram }]
    const wanted = epochsToKeep(POLICY, all)
    this.kept = all.filter(each => wanted.has(each.epoch))
  }

  /** As a restore does: what has been committed since is no more. */
  goBackTo({ table, ram }: Kept): void {
    this.state.reset(table.fork())
    this.ram = [...ram]
  }

  /** Reads every page of a kept image where its table says; how many streams that takes. */
  streamsOf({ epoch, table, ram }: Kept): number {
    const streams = new Set<string>()
    for (const [page, content] of ram.entries()) {
      const place = table.placeOf(page)
      const stream = place && table.streams[place.slot]?.manifest.stream
      if (place === undefined || stream === undefined) throw new Error(`page ${page} of epoch ${epoch} lies nowhere`)
      if (this.#written.get(`${stream} ${place.locator}`) !== content) {
        throw new Error(`page ${page} of epoch ${epoch} is another in stream ${stream}`)
      }
      streams.add(stream)
    }
    return streams.size
  }
}

function streamOf(epoch: number, pages: number): PageStream {
  const manifest = { stream: `${epoch}`, k: 1, m: 1, holders: HOLDERS, dataBytes: 1 << 20, grids: [] }
  const extentLengths = new Uint32Array(Math.ceil(pages / 16)).fill(100)
  return { manifest, salt: new Uint8Array(16), extentLengths, pages, lengths: { offset: 16, length: 16 } }
}

test('each kept image is read from its own streams alone, a bounded number, however many epochs are kept and for how long', () => {
  let most = 0
  const few = fc.array(fc.nat(PAGES - 1), { maxLength: 4 })
  const property = fc.property(fc.array(few, { minLength: 150, maxLength: 250 }), fc.nat(), (epochs, back) => {
    const vm = new KeptVm()
    for (const [i, changed] of epochs.entries()) {
      if (i === 100) vm.goBackTo(vm.kept[back % vm.kept.length] as Kept)
      vm.take(changed)
      most = Math.max(most, vm.streamsOf(vm.kept.at(-1) as Kept))
    }
    // Those that were kept for long are as they were.
    for (const image of vm.kept) expect(vm.streamsOf(image)).toBeLessThanOrEqual(MAX_STREAMS)
    expect(vm.kept.length).toBeGreaterThanOrEqual(POLICY.keepLast)
  })
  fc.assert(property, { numRuns: 5 })
  expect(most).toBeLessThanOrEqual(MAX_STREAMS)
  expect(most).toBeGreaterThan(8) // or it would not have come near
})
