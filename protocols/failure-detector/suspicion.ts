/**
 * How long a suspicion lasts before the member is declared dead (Lifeguard, arXiv 1707.00788, section IV-B): from
 * `maxMs` with no independent confirmation down to `minMs` with `wanted` of them, falling with the logarithm. The first
 * confirmations say the most; a peer that is alone in its suspicion is more likely the slow one itself.
 */
export function suspicionTimeoutMs(confirmations: number, wanted: number, minMs: number, maxMs: number): number {
  if (wanted <= 0) return minMs
  const fraction = Math.log(confirmations + 1) / Math.log(wanted + 1)
  return Math.max(minMs, maxMs - (maxMs - minMs) * fraction)
}

/** Lifeguard's K: more confirmations than this shorten nothing. */
const MAX_WANTED = 3

/** Confirmations that can be expected among `members` not dead, oneself and the suspect included. */
export const wantedConfirmations = (members: number): number => Math.max(0, Math.min(MAX_WANTED, members - 2))
