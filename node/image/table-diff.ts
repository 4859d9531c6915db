/**
 * What differs between the page tables of two images of one VM, each with slots of its own: a page is as it was where it lies
 * at the same place of the same stream, with its delta at the same place, since streams never change. A page that was
 * moved counts as different, though its content may be the same. Pure.
 */
import { PageSet } from './page-set.ts'
import { type PageSegment, type PageTable, SEGMENT_PAGES, ZERO_SLOT } from './page-table.ts'

/** A slot of the newer table → that of the same stream in the older one; ZERO_SLOT to itself; undefined: it has none. */
type SameSlots = readonly (number | undefined)[]

/** Pages of RAM whose content in `after` may not be that of `before`; undefined: zeros everywhere. */
export function changedPages(before: PageTable | undefined, after: PageTable): PageSet {
  const changed = new PageSet(after.ramPages)
  const slots = sameSlots(before, after)
  for (let number = 0; number * SEGMENT_PAGES < after.ramPages; number++) {
    const [old, now] = [before?.segments[number], after.segments[number]]
    if (old === now || isSameRecord(before, after, number, slots)) continue
    const first = number * SEGMENT_PAGES
    const count = Math.min(SEGMENT_PAGES, after.ramPages - first)
    for (let at = 0; at < count; at++) if (!isSame(old, now, at, slots)) changed.add(first + at)
  }
  return changed
}

/** Copies what `before` knows of contents to `after`, but for these pages: the same content has the same id. */
export function carryContents(before: PageTable, after: PageTable, changed: PageSet): void {
  for (const [number, now] of after.segments.entries()) {
    const old = before.segments[number]
    if (old === undefined || now === undefined) continue
    now.hashes.set(old.hashes)
    for (let at = 0; at < SEGMENT_PAGES; at++) {
      const page = number * SEGMENT_PAGES + at
      const known = page < after.ramPages && now.slots[at] !== ZERO_SLOT && !changed.has(page)
      if (!known) now.hashes.fill(0, 4 * at, 4 * at + 4)
    }
  }
}

function sameSlots(before: PageTable | undefined, after: PageTable): SameSlots {
  const slots: (number | undefined)[] = []
  slots[ZERO_SLOT] = ZERO_SLOT
  const old = new Map(before?.streams.map((stream, slot) => [stream?.manifest.stream, slot]))
  for (const [slot, stream] of after.streams.entries()) if (stream) slots[slot] = old.get(stream.manifest.stream)
  return slots
}

/** The segment is stored in the same record as before: nothing in it has changed, and so no slot of it. */
function isSameRecord(before: PageTable | undefined, after: PageTable, number: number, slots: SameSlots): boolean {
  const [old, now] = [before?.recordOf(number), after.recordOf(number)]
  if (old === undefined || now === undefined) return false
  return slots[now.slot] === old.slot && now.offset === old.offset && now.counter === old.counter
}

function isSame(old: PageSegment | undefined, now: PageSegment | undefined, at: number, slots: SameSlots): boolean {
  return isSamePlace(old, now, at, slots) && isSamePlace(old?.deltas, now?.deltas, at, slots)
}

type Places = Pick<PageSegment, 'slots' | 'locators'>

function isSamePlace(old: Places | undefined, now: Places | undefined, at: number, slots: SameSlots): boolean {
  const [was, is] = [old?.slots[at] ?? ZERO_SLOT, now?.slots[at] ?? ZERO_SLOT]
  if (slots[is] !== was) return false
  return is === ZERO_SLOT || old?.locators[at] === now?.locators[at]
}
