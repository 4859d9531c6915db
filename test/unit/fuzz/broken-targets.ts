/** Parsers with the mistakes that fuzzing must find, each at some of its inputs. */
import { bytesText, durationText } from '../../../node/edge/format.ts'
import type { Target } from '../../fuzz/target.ts'

const target = (name: string, run: Target['run'], rest: Partial<Target> = {}): Target => ({
  name,
  group: 'texts',
  summary: name,
  seeds: () => [new Uint8Array(64).fill(1)],
  run,
  ...rest
})

/** One input in a few. */
const fits = (input: Uint8Array): boolean => input.length < 60

/** Of the target that tires, in this thread. */
let runs = 0
const MOST_RUNS = 1_500

export const targets: readonly Target[] = [
  target('sound', input => (fits(input) ? 'REFUSED' : undefined)),
  target('throws', input => {
    if (fits(input)) throw new TypeError('beyond the end')
    return undefined
  }),
  target('rejects', async input => {
    await Promise.resolve()
    if (fits(input)) throw new TypeError('beyond the end')
    return undefined
  }),
  target('chooses', (input, random) => {
    if (fits(input) && (input.length + Math.floor(1000 * random())) % 7 === 0) throw new TypeError('in these chunks')
    return undefined
  }),
  target('hangs', input => {
    while (fits(input));
    return undefined
  }),
  // Reaches more of our own program with inputs of other lengths than its seeds', and hangs in each thread: in short ones, either where it was
  // given such to begin with, behind its two seeds, or after many.
  target(
    'tires',
    input => {
      runs++
      while (fits(input) && (runs === 3 || runs === 4 || runs > MOST_RUNS));
      if (fits(input)) return durationText(input.length)
      return input.length > 64 ? bytesText(input.length) : undefined
    },
    { seeds: () => [1, 2].map(value => new Uint8Array(64).fill(value)) }
  ),
  target('hoards', input => (fits(input) ? String(new Uint8Array(3 << 20).length) : undefined), {
    memoryBytes: 1 << 20
  }),
  target('recurses', input => {
    const deeper = (depth: number): number => 1 + deeper(depth + 1)
    return fits(input) ? String(deeper(0)) : undefined
  }),
  target('fills the heap', input => {
    const all: unknown[] = []
    while (fits(input)) all.push(new Array(1_000_000).fill(all))
    return undefined
  }),
  target('exits', input => {
    if (fits(input)) process.exit(0)
    return undefined
  }),
  target('forgets', input => {
    if (fits(input)) void Promise.reject(new TypeError('nobody awaits it'))
    return undefined
  })
]
