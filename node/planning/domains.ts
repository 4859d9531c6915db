/**
 * What is known of the peers that store, for planners of where columns go: their failure domains, nested (peer in host in
 * rack in site), and their free space. Pure. A peer without a label shares that domain with nobody.
 */
import { createHash } from 'node:crypto'
import type { Labels } from '../../config/schema.ts'
import type { PeerId } from '../../protocols/core.ts'

/** A peer that may hold columns, and run VMs. */
export interface StoragePeer {
  readonly peer: PeerId
  readonly labels?: Labels | undefined
  /** What its store may still take, beyond its reserve; 0: it is full. Absent: it has not said so, and counts as any other. */
  readonly freeBytes?: number | undefined
  /** MiB of RAM that it gives to VMs, of all groups together. Absent: it has not said so, and has room for any. */
  readonly vmMemoryMiB?: number | undefined
  /** What it understands (`protocols/host-facts.ts`). Absent: it has not said so. */
  readonly speaks?: number | undefined
}

/** Less than this is no room: a few grids. A guess. */
const LEAST_FREE_BYTES = 64 << 20

/**
 * Free space as peers tell it to each other: in powers of two, so that it changes rarely and nobody's plan hangs on a few bytes. It
 * falls at once and rises only when there is a quarter more than the next step, `before` being what was told last.
 */
export function coarseFree(freeBytes: number, before: number | undefined): number {
  const step = freeBytes < LEAST_FREE_BYTES ? 0 : 2 ** Math.floor(Math.log2(freeBytes))
  if (before === undefined || step <= before) return step
  return freeBytes >= 1.25 * step ? step : Math.max(before, step === LEAST_FREE_BYTES ? 0 : step / 2)
}

/** From the largest to the smallest. */
export const LEVELS = ['site', 'rack', 'host'] as const
export type Level = (typeof LEVELS)[number]

/** The name of a peer's domain of each level, the same for two peers exactly if they share it. */
export function domainsOf({ peer, labels = {} }: StoragePeer): Readonly<Record<Level, string>> {
  const { site = '', rack = '', host } = labels
  const ownHost = host === undefined ? `peer ${peer}` : `host ${site}/${rack}/${host}`
  const ownRack = labels.rack === undefined ? ownHost : `rack ${site}/${rack}`
  return { host: ownHost, rack: ownRack, site: labels.site === undefined ? ownRack : `site ${site}` }
}

export const isFull = ({ freeBytes }: StoragePeer): boolean => freeBytes === 0

/**
 * Weighted rendezvous: of several peers the one with the highest score is chosen for `key`, each with a probability that is
 * its weight's share, and a choice changes only where the chosen one goes or the newcomer scores higher. Source: D. G. Thaler
 * and C. V. Ravishankar, "Using name-based mappings to increase hit rates" (1998); with weights as in C. Schindelhauer and
 * G. Schomaker, "Weighted distributed hash tables" (SPAA 2005), the logarithmic method.
 */
export function rendezvousScore(peer: PeerId, key: string, weight: number): number {
  const digest = createHash('sha256').update(`${key}\n${peer}`).digest()
  const uniform = (digest.readUIntBE(0, 6) + 0.5) / 2 ** 48
  return weight / -Math.log(uniform)
}

/** Each peer's weight: its free space; the median of the others where it has not said so, and at least something. */
export function weightsOf(peers: readonly StoragePeer[]): Map<PeerId, number> {
  const known = peers.flatMap(({ freeBytes }) => (freeBytes === undefined ? [] : [freeBytes])).sort((a, b) => a - b)
  const median = known[known.length >> 1] ?? 1
  return new Map(peers.map(({ peer, freeBytes = median }) => [peer, Math.max(1, freeBytes)]))
}
