/**
 * What the clients of one register were told, judged: is it what a single register could have told them? Whatever was
 * appended stays in the log, so a log that somebody saw says which changes came before it.
 */
import { isLinearizable, type Model, type Operation } from './linearizability.ts'

/** Change ids have no other use than to be told apart; reads and changes put out the log they saw. */
export type Input = { readonly append: string } | 'read' | 'delete'
export type History = Operation<Input, readonly string[]>

export interface Wrong {
  readonly invariant: 'changesHappenOnce' | 'registersAreLinearizable'
  readonly what: string
  /** When what a client was told was wrong first. */
  readonly atMs: number
}

/** What is wrong with a history, if something is, and since when. */
export function wrongWith(history: readonly History[]): Wrong | undefined {
  if (wrongOf(history) === undefined) return undefined
  const returned = history
    .filter(({ returnMs }) => returnMs < Number.POSITIVE_INFINITY)
    .sort((a, b) => a.returnMs - b.returnMs)
  // A history that no register could have had does not become one by what comes later.
  let [low, high] = [0, returned.length - 1]
  while (low < high) {
    const middle = (low + high) >> 1
    if (wrongOf(until(history, returned[middle] as History)) === undefined) low = middle + 1
    else high = middle
  }
  const last = returned[low] as History
  const wrong = wrongOf(until(history, last)) as Pick<Wrong, 'invariant' | 'what'>
  const asked = typeof last.input === 'object' ? `change ${last.input.append}` : last.input
  const told = `${asked}, called at ${last.callMs.toFixed(3)} ms, was told [${last.output?.join()}]`
  return { invariant: wrong.invariant, what: `${wrong.what}: ${told}`, atMs: last.returnMs }
}

/** What was known of it when `last` returned. */
function until(history: readonly History[], { returnMs }: History): History[] {
  return history
    .filter(({ callMs }) => callMs <= returnMs)
    .map(each =>
      each.returnMs <= returnMs ? each : { ...each, returnMs: Number.POSITIVE_INFINITY, output: undefined }
    )
}

function wrongOf(history: readonly History[]): Pick<Wrong, 'invariant' | 'what'> | undefined {
  const tree = new LogTree()
  for (const { output } of history) if (output !== undefined) tree.add(output)
  if (tree.twice !== undefined) return { invariant: 'changesHappenOnce', what: `change ${tree.twice} happened twice` }
  // A change without an answer that no log shows never happened, as far as anyone knows.
  const relevant = history.filter(
    ({ input, output }) => output !== undefined || typeof input !== 'object' || tree.knows(input.append)
  )
  return isLinearizable(modelOf(tree), relevant)
    ? undefined
    : { invariant: 'registersAreLinearizable', what: 'no order explains it' }
}

/** All logs that anyone saw, as a tree: a log is a way from the root, a life of the register a branch of it. */
class LogTree {
  /** A change that is in two places. */
  twice: string | undefined
  /** Node and change → the node after it. The root is 0: nothing written, or deleted. */
  readonly #next = new Map<string, number>()
  readonly #places = new Map<string, number>()

  add(log: readonly string[]): void {
    let node = 0
    for (const id of log) {
      const step = `${node} ${id}`
      let next = this.#next.get(step)
      if (next === undefined) {
        next = this.#next.size + 1
        this.#next.set(step, next)
        if (this.#places.has(id)) this.twice = id
        this.#places.set(id, next)
      }
      node = next
    }
  }

  knows(id: string): boolean {
    return this.#places.has(id)
  }

  after(node: number, id: string): number | undefined {
    return this.#next.get(`${node} ${id}`)
  }

  find(log: readonly string[]): number | undefined {
    return log.length === 0 ? 0 : this.#places.get(log.at(-1) ?? '')
  }
}

/** A register that appends and can be deleted. An append leads to a log that somebody saw, for its own client did. */
function modelOf(tree: LogTree): Model<number, Input, readonly string[]> {
  return {
    initial: 0,
    step: (node, input, output) => {
      if (input === 'delete') return 0
      if (input === 'read') return output === undefined || tree.find(output) === node ? node : undefined
      return tree.after(node, input.append)
    },
    name: String
  }
}
