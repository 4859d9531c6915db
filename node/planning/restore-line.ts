/**
 * The restore line of a group: which VMs start together, and when each starts. Pure. The name and the idea are of HotRestore (L. Cui
 * et al., LISA 2014): VMs come up at different times, and one that talks to another that is not there yet runs into timeouts.
 *
 * What is said to a VM that does not run yet is not lost: it waits at its switch, behind the frames of its image. But it is not
 * answered either. So VMs that wait for each other start together: who is ready waits, stopped, for the slowest of its component; a
 * stopped VM's timers stand still. Others start when they are ready. Nobody waits longer than `togetherMs`: then those that are ready
 * start together, and who is missing starts when it comes. It is likely not to come soon, and much can be done without it.
 */
import { compareText, componentsOf, type TalksOf, type Wait, waitsOf } from './communication.ts'

export interface LineFacts {
  readonly vms: readonly string[]
  readonly talks: TalksOf
  /** When each will be ready, after the restore began, in milliseconds; absent: it is not known, and counts as the others' median. */
  readonly readyMs?: Readonly<Record<string, number>>
  /** As the setting `restore.togetherMs`. */
  readonly togetherMs: number
}

export interface Start {
  readonly vm: string
  readonly readyMs: number
  readonly atMs: number
  /** It starts without these, which are too slow. */
  readonly without: readonly string[]
}

export interface Together {
  /** In the order in which they become ready. */
  readonly starts: readonly Start[]
  /** Why they start together. */
  readonly waits: readonly Wait[]
}

export interface RestoreLine {
  /** In the order in which their last VM starts. */
  readonly together: readonly Together[]
}

export function planRestoreLine({ vms, talks, readyMs = {}, togetherMs }: LineFacts): RestoreLine {
  const waits = waitsOf(vms, talks)
  const known = Object.values(readyMs).sort((a, b) => a - b)
  const median = known[known.length >> 1] ?? 0
  const readyOf = (vm: string): number => readyMs[vm] ?? median
  const together = componentsOf(vms, waits).map(component => {
    const order = component.toSorted((a, b) => readyOf(a) - readyOf(b) || compareText(a, b))
    const goMs = Math.min(readyOf(order.at(-1) ?? ''), readyOf(order[0] ?? '') + togetherMs)
    const starts = order.map(vm => {
      const ready = readyOf(vm)
      const atMs = Math.max(ready, goMs)
      return { vm, readyMs: ready, atMs, without: component.filter(other => readyOf(other) > atMs) }
    })
    return { starts, waits: waits.filter(({ vm }) => component.includes(vm)) }
  })
  const end = ({ starts }: Together): number => Math.max(...starts.map(({ atMs }) => atMs))
  const first = ({ starts }: Together): string => starts[0]?.vm ?? ''
  return { together: together.sort((a, b) => end(a) - end(b) || compareText(first(a), first(b))) }
}

/** With whom `vm` starts together, itself not among them; sorted. */
export function startsWith(vm: string, vms: readonly string[], talks: TalksOf): readonly string[] {
  const component = componentsOf(vms, waitsOf(vms, talks)).find(each => each.includes(vm)) ?? []
  return component.filter(other => other !== vm)
}
