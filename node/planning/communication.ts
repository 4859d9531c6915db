/**
 * Who waits for whom in a group, from what each VM's image says of its talks. Pure. A VM waits for another if it had answers from it
 * again and again, each within a second: while that one is silent its timers run, and TCP backs off (200 ms, then 400, 800 …).
 */
import type { Talk } from '../../protocols/talks.ts'

/** VM → its talks; a VM that is not among them has told nothing (an image of an older version, frames that pass a bridge). */
export type TalksOf = Readonly<Record<string, readonly Talk[]>>

/** One VM waits for the other. */
export interface Wait {
  readonly vm: string
  readonly waitsFor: string
  readonly network: string
  /** In the last epochs, the newest counting most. */
  readonly answers: number
  /** On average. */
  readonly answerMs: number
}

/** Fewer answers than this may be chance, or long ago: counts halve with each epoch. A guess. */
const LEAST_ANSWERS = 2

/** Sorted by VM, other and network. Those that are not in `vms` are left out. */
export function waitsOf(vms: readonly string[], talks: TalksOf): Wait[] {
  const all = new Set(vms)
  return [...all].sort().flatMap(vm =>
    (talks[vm] ?? [])
      .filter(talk => talk.answers >= LEAST_ANSWERS && talk.vm !== vm && all.has(talk.vm))
      .map(({ vm: waitsFor, network, answers, answerMs }) => ({ vm, waitsFor, network, answers, answerMs }))
      .sort((a, b) => compareText(a.waitsFor, b.waitsFor) || compareText(a.network, b.network))
  )
}

/** VMs that wait for each other, by themselves or by others: each with its VMs sorted, and by their first. */
export function componentsOf(vms: readonly string[], waits: readonly Wait[]): string[][] {
  const above = new Map(vms.map(vm => [vm, vm]))
  const top = (vm: string): string => {
    const next = above.get(vm) ?? vm
    if (next === vm) return vm
    const end = top(next)
    above.set(vm, end)
    return end
  }
  for (const { vm, waitsFor } of waits) {
    const [a, b] = [top(vm), top(waitsFor)]
    if (a !== b) above.set(compareText(a, b) < 0 ? b : a, compareText(a, b) < 0 ? a : b)
  }
  return [...Map.groupBy([...new Set(vms)].sort(), top).values()]
}

export const compareText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
