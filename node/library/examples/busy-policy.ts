/**
 * A policy of one's own: an epoch each minute, each ten seconds while much changes. As JavaScript it is a module for
 * `[policies] busy = "/etc/diapause/busy.mjs"`; here it is tried on what was recorded.
 */
import { dueEvery, type Policy, type SeenEpoch, simulatePolicy } from '../policy.ts' // from 'diapause/policy'

interface Settings {
  readonly busyPages: number
}

export const next: Policy<Settings> = (history, now, { busyPages }) => {
  const cuts = Object.values(history.at(-1)?.vms ?? {})
  const changed = cuts.reduce((sum, { image }) => sum + (image?.pagesChanged ?? 0), 0)
  const everyMs = changed > busyPages ? 10_000 : 60_000
  return { atMs: dueEvery(history, now, everyMs), why: `${changed} pages changed` }
}

/** What it would have cost: the part of their time that VMs stand still, and what a host's death loses on average. */
export function tryOn(recorded: readonly SeenEpoch[]): { overhead: number; lossMs: number } | undefined {
  const simulated = simulatePolicy(recorded, (history, now) => next(history, now, { busyPages: 16_384 }))
  return simulated && { overhead: simulated.wouldBe.overhead, lossMs: simulated.wouldBe.lossMs.mean }
}
