/**
 * Failure detection as a whole: how fast, how often wrong, at which price; at 10, 100, … peers, and against plain SWIM.
 * The production core runs in the world of `swim-world.ts`: messages take 0.5 to 4.5 ms, time is virtual.
 */
import type { Extensions } from '../../protocols/failure-detector/view.ts'
import { measureCrashes } from './detection-crashes.ts'
import { measureFalseDeaths, type Trouble } from './detection-false.ts'
import { measureLoad } from './detection-load.ts'
import { type CrashRow, checksOf, type FalseRow, type LoadRow, textOf, troubleText } from './detection-report.ts'
import { type Scenario, progress } from './scenario.ts'

interface Variant {
  readonly name: string
  readonly extensions: Extensions
}

const OURS: Variant = { name: 'ours', extensions: { lifeguard: true, allowances: true } }
const VARIANTS: readonly Variant[] = [
  { name: 'SWIM', extensions: { lifeguard: false, allowances: false } },
  { name: 'SWIM + Lifeguard', extensions: { lifeguard: true, allowances: false } },
  { name: 'ours, no Lifeguard', extensions: { lifeguard: false, allowances: true } },
  OURS
]
const CRASHES = 100
const LOSS: Trouble = { kind: 'loss', loss: 0.01 }
/** Longer than plain SWIM waits; two and a half periods. */
const SHORT_STOPS: Trouble = { kind: 'starved', stopMs: 512 }
/** About as long as a vanished host is waited for. */
const LONG_STOPS: Trouble = { kind: 'starved', stopMs: 1_024 }

export const detection: Scenario<{ peers: number; first: number; minutes: number }> = {
  name: 'detection',
  options: { peers: 1_000, first: 1, minutes: 2 },
  async run({ peers, first, minutes }) {
    const sizes = [10, 100, 1_000].filter(size => size < peers).concat(peers)
    // Variants are compared where a run costs little.
    const few = sizes.at(-2) ?? peers
    const load = (size: number): LoadRow => {
      progress(`load of ${size} peers`)
      return { peers: size, ...measureLoad(first, size, OURS.extensions) }
    }
    const crash = (size: number, { name, extensions }: Variant): CrashRow[] =>
      (['killed', 'vanished'] as const).map(kind => {
        progress(`${CRASHES} crashes among ${size} peers, ${kind}: ${name}`)
        return { peers: size, variant: name, crash: kind, ...measureCrashes(first, size, kind, CRASHES, extensions) }
      })
    const wrong = (size: number, forMs: number, trouble: Trouble, { name, extensions }: Variant): FalseRow => {
      progress(`false deaths among ${size} peers, ${troubleText(trouble)}: ${name}`)
      const found = measureFalseDeaths(first, size, forMs, trouble, extensions)
      return { peers: size, variant: name, trouble, ...found }
    }
    const forMs = minutes * 60_000
    const loads = sizes.map(load)
    const crashes = [
      ...VARIANTS.flatMap(one => crash(few, one)),
      ...sizes.filter(size => size !== few).flatMap(size => crash(size, OURS))
    ]
    const falseDeaths = [
      ...VARIANTS.map(one => wrong(few, 5 * forMs, LOSS, one)),
      wrong(peers, forMs / 4, LOSS, OURS),
      ...VARIANTS.map(one => wrong(few, forMs, SHORT_STOPS, one)),
      wrong(peers, forMs / 8, SHORT_STOPS, OURS),
      ...VARIANTS.map(one => wrong(few, forMs, LONG_STOPS, one)),
      wrong(peers, forMs / 24, LONG_STOPS, OURS)
    ]
    const rows = { loads, crashes, falseDeaths }
    return { checks: checksOf(rows), text: textOf(rows), details: { first, minutes, ...rows } }
  }
}
