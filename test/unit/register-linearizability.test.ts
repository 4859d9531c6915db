import fc from 'fast-check'
import { expect, test } from 'vitest'
import { isLinearizable, type Model, type Operation } from '../sim/linearizability.ts'

type Input = { readonly write: number } | 'read'
type History = Operation<Input, number>[]

const REGISTER: Model<number, Input, number> = {
  initial: 0,
  step: (state, input, output) => {
    if (input === 'read') return output === undefined || output === state ? state : undefined
    return input.write
  },
  name: String
}

const write = (callMs: number, returnMs: number, value: number): Operation<Input, number> => ({
  callMs,
  returnMs,
  input: { write: value },
  output: 0
})
const read = (callMs: number, returnMs: number, output: number): Operation<Input, number> => ({
  callMs,
  returnMs,
  input: 'read',
  output
})
const unknown = (callMs: number, value: number): Operation<Input, number> => ({
  callMs,
  returnMs: Number.POSITIVE_INFINITY,
  input: { write: value },
  output: undefined
})

test('a history with an order that explains it is linearizable', () => {
  expect(isLinearizable(REGISTER, [])).toBe(true)
  expect(isLinearizable(REGISTER, [write(0, 1, 7), read(2, 3, 7)])).toBe(true)
  expect(isLinearizable(REGISTER, [write(0, 10, 7), read(2, 3, 7), read(4, 5, 7)])).toBe(true)
  expect(isLinearizable(REGISTER, [write(0, 10, 7), read(2, 3, 0), read(4, 5, 7)])).toBe(true)
})

test('a stale read, a lost write, a read that goes back and a value from nowhere are caught', () => {
  expect(isLinearizable(REGISTER, [write(0, 1, 7), read(2, 3, 0)])).toBe(false)
  expect(isLinearizable(REGISTER, [write(0, 1, 7), write(2, 3, 8), read(4, 5, 7)])).toBe(false)
  expect(isLinearizable(REGISTER, [write(0, 10, 7), read(2, 3, 7), read(4, 5, 0)])).toBe(false)
  expect(isLinearizable(REGISTER, [read(0, 1, 9)])).toBe(false)
})

test('a write without an answer may happen late or never, but not before its call and not twice', () => {
  expect(isLinearizable(REGISTER, [unknown(0, 7), read(50, 51, 7)])).toBe(true)
  expect(isLinearizable(REGISTER, [unknown(0, 7), read(50, 51, 0)])).toBe(true)
  expect(isLinearizable(REGISTER, [read(0, 1, 7), unknown(2, 7)])).toBe(false)
  expect(isLinearizable(REGISTER, [unknown(0, 7), read(1, 2, 7), write(3, 4, 8), read(5, 6, 7)])).toBe(false)
})

test('it agrees with trying every order, on random histories', () => {
  const operation = fc
    .record({
      callMs: fc.integer({ min: 0, max: 12 }),
      lengthMs: fc.integer({ min: 0, max: 6 }),
      value: fc.integer({ min: 0, max: 2 }),
      kind: fc.constantFrom('read', 'write', 'unknown')
    })
    .map(({ callMs, lengthMs, value, kind }) => {
      if (kind === 'unknown') return unknown(callMs, value)
      return kind === 'read' ? read(callMs, callMs + lengthMs, value) : write(callMs, callMs + lengthMs, value)
    })
  const verdicts = new Set<boolean>()
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 6 }), history => {
      const expected = tryEveryOrder(0, history)
      verdicts.add(expected)
      expect(isLinearizable(REGISTER, history)).toBe(expected)
    }),
    { numRuns: 2_000 }
  )
  expect(verdicts.size).toBe(2)
})

/** The definition: some order of all that returned, and of any of the others, that respects time and explains the outputs. */
function tryEveryOrder(state: number, left: History): boolean {
  if (left.every(({ returnMs }) => returnMs === Number.POSITIVE_INFINITY)) return true
  return left.some((operation, i) => {
    if (left.some((other, j) => i !== j && other.returnMs < operation.callMs)) return false
    const after = REGISTER.step(state, operation.input, operation.output)
    return after !== undefined && tryEveryOrder(after, [...left.slice(0, i), ...left.slice(i + 1)])
  })
}
