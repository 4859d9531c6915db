/**
 * Is a history of concurrent operations linearizable? Wing and Gong's search (1993) with Lowe's memo of
 * (operations done, state) pairs (2017), which is how Porcupine does it: walk the events in time order, try each
 * operation that has been called as the next to take effect, and step back where an operation that returned has not.
 *
 * An operation whose outcome is unknown has `returnMs` Infinity: it may take effect at any time after its call, or never.
 */
export interface Operation<Input, Output> {
  readonly callMs: number
  /** Infinity where no answer came. */
  readonly returnMs: number
  readonly input: Input
  /** Undefined where no answer came. */
  readonly output: Output | undefined
}

export interface Model<State, Input, Output> {
  readonly initial: State
  /** The state after it, or undefined where this input cannot give this output here. */
  step(state: State, input: Input, output: Output | undefined): State | undefined
  /** Equal states have equal names. */
  name(state: State): string
}

/** A place in the list of events by time. One that was taken out is put back from its own pointers. */
interface Place<Input, Output> {
  readonly index: number
  /** Null for the head only. */
  readonly operation: Operation<Input, Output> | null
  previous: Place<Input, Output> | null
  next: Place<Input, Output> | null
  /** The place of the return; null where this is one. */
  match: Place<Input, Output> | null
}

export function isLinearizable<State, Input, Output>(
  model: Model<State, Input, Output>,
  history: readonly Operation<Input, Output>[]
): boolean {
  const head = link(history)
  let open = history.filter(operation => operation.returnMs !== Number.POSITIVE_INFINITY).length
  const done = new Uint8Array(history.length)
  const seen = new Set<string>()
  const trail: { call: Place<Input, Output>; before: State }[] = []
  let state = model.initial
  let node = head.next
  while (open > 0) {
    const operation = node?.operation
    if (node !== null && operation && node.match !== null) {
      const after = model.step(state, operation.input, operation.output)
      if (after !== undefined) {
        done[node.index] = 1
        const name = `${done.join('')} ${model.name(after)}`
        if (!seen.has(name)) {
          seen.add(name)
          trail.push({ call: node, before: state })
          state = after
          if (operation.returnMs !== Number.POSITIVE_INFINITY) open -= 1
          lift(node)
          node = head.next
          continue
        }
        done[node.index] = 0
      }
      node = node.next
      continue
    }
    // A return whose call has not taken effect, or the end: what was tried last was wrong.
    const last = trail.pop()
    if (last === undefined) return false
    state = last.before
    done[last.call.index] = 0
    if (last.call.operation?.returnMs !== Number.POSITIVE_INFINITY) open += 1
    unlift(last.call)
    node = last.call.next
  }
  return true
}

/** The events in time order behind a head; of two at the same time the call comes first (they may overlap). */
function link<Input, Output>(history: readonly Operation<Input, Output>[]): Place<Input, Output> {
  const place = (operation: Operation<Input, Output> | null, index: number): Place<Input, Output> => ({
    index,
    operation,
    previous: null,
    next: null,
    match: null
  })
  const events: { atMs: number; order: number; place: Place<Input, Output> }[] = []
  history.forEach((operation, index) => {
    const [call, end] = [place(operation, index), place(operation, index)]
    call.match = end
    events.push({ atMs: operation.callMs, order: 0, place: call }, { atMs: operation.returnMs, order: 1, place: end })
  })
  events.sort((a, b) => (a.atMs === b.atMs ? a.order - b.order : a.atMs < b.atMs ? -1 : 1))
  const head = place(null, -1)
  let last = head
  for (const { place: next } of events) {
    last.next = next
    next.previous = last
    last = next
  }
  return head
}

function lift<Input, Output>(call: Place<Input, Output>): void {
  for (const place of [call, call.match]) {
    if (place === null) continue
    if (place.previous !== null) place.previous.next = place.next
    if (place.next !== null) place.next.previous = place.previous
  }
}

function unlift<Input, Output>(call: Place<Input, Output>): void {
  for (const place of [call.match, call]) {
    if (place === null) continue
    if (place.previous !== null) place.previous.next = place
    if (place.next !== null) place.next.previous = place
  }
}
