/** Parsers with the mistakes that fuzzing must find, each at some of its inputs. */
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
