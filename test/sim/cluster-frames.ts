/** The frames that were under way at a cut: each is in the image of its receiver, once, and no other is. */
import type { Book, CutFact } from './world-book.ts'

/** What is wrong with the in-flight frames in the image of `vm`, where something is. */
export function framesOfImage(
  book: Book,
  facts: ReadonlyMap<string, CutFact>,
  vm: string,
  recorded: readonly number[]
): string | undefined {
  const { run, taken: takenCount, recent } = facts.get(vm) as CutFact
  const taken = new Set(run.taken.slice(0, takenCount))
  const kept = new Set(recorded)
  if (kept.size < recorded.length) return `${vm} has a frame twice in its image`
  for (const id of [...taken, ...recorded]) {
    const { from, index } = book.frames[id] as (typeof book.frames)[number]
    if (run.injected.has(id)) continue
    const sender = facts.get(from.vm)
    if (sender?.run !== from) return `${vm} has frame ${id}, and ${from.vm} of generation ${from.generation} sent it`
    if (index >= sender.sent) return `${vm} has frame ${id}, which ${from.vm} sent after its cut`
  }
  for (const id of recorded) {
    if (taken.has(id) && !recent.has(id)) return `${vm} has taken frame ${id}, and it is in the image again`
  }
  for (const { run: sender, sent } of facts.values()) {
    for (const frame of sender.sent.slice(0, sent)) {
      if (frame.to !== vm || taken.has(frame.id) || kept.has(frame.id) || frame.lost !== undefined) continue
      if (frame.cameTo?.dead === true && frame.cameTo !== run.life) continue // gone with the process that had it
      return `frame ${frame.id} of ${sender.vm} to ${vm} was under way and is not in the image`
    }
  }
  for (const id of run.injected) {
    if (!taken.has(id) && !kept.has(id)) return `frame ${id} of the image that ${vm} began with is in neither`
  }
  return undefined
}
