/** Content ids of pages in a page table: 16 bytes as four words. A digest is a latin1 string. Pure. */
import { type PageSegment, type PageTable, SEGMENT_PAGES, ZERO_SLOT } from './page-table.ts'

/** The first word of a page's id. */
export const keyOf = (table: PageTable, page: number): number =>
  table.segmentOf(page)?.hashes[4 * (page % SEGMENT_PAGES)] ?? 0

/** Whether the page is known to have this content. */
export function knows(table: PageTable, page: number, digest: string): boolean {
  const segment = table.segmentOf(page)
  const at = page % SEGMENT_PAGES
  if (segment === undefined || segment.slots[at] === ZERO_SLOT) return false
  const { hashes } = segment
  return (
    hashes[4 * at] === word(digest, 0) &&
    hashes[4 * at + 1] === word(digest, 4) &&
    hashes[4 * at + 2] === word(digest, 8) &&
    hashes[4 * at + 3] === word(digest, 12)
  )
}

export function noteHash({ hashes }: PageSegment, page: number, digest: string): void {
  const at = 4 * (page % SEGMENT_PAGES)
  for (let i = 0; i < 4; i++) hashes[at + i] = word(digest, 4 * i)
}

export const word = (digest: string, at: number): number =>
  (digest.charCodeAt(at) |
    (digest.charCodeAt(at + 1) << 8) |
    (digest.charCodeAt(at + 2) << 16) |
    (digest.charCodeAt(at + 3) << 24)) >>>
  0
