/** What half an hour of nothing but work has shown: growth of what each peer takes, from its fifth minute to its last. Pure. */
import { atLeast, atMost, type Check, equal, note } from '../measure.ts'
import { bounded, type Sample } from './bounds.ts'

export interface SoakSeen {
  readonly minutes: number
  readonly intervalMs: number
  /** All that there are, seen or not. */
  readonly peers: readonly string[]
  readonly samples: readonly Sample[]
  readonly epochs: number
  readonly broken: readonly string[]
}

/** By then a peer has compiled what it runs often and filled its caches. As the issue of chaos asks. */
const SETTLED_MINUTE = 5
/** Shorter ones have no minute after that to compare with. */
export const LEAST_MINUTES = SETTLED_MINUTE + 2
/** "Within 10 %" is promised of memory. */
const MOST_RSS_GROWTH = 1.1
/** An image is a chain of streams, of a file or more each, which is some long or some more: descriptors and disk go up and down. */
const MOST_OTHER_GROWTH = 1.5
/** Of the event loop's mean delay: 20 to 32 ms were seen under the random mix, 20 of them between two looks. */
const MOST_LOOP_GROWTH = 1.5
/** Of the epochs that there is time for: one that is cut while a machine is busy may be given up and taken again. */
const LEAST_EPOCHS = 0.9

export function soakChecks({ minutes, intervalMs, peers, samples, epochs, broken }: SoakSeen): Check[] {
  const own = (peer: string) => samples.filter(sample => sample.peer === peer)
  const grown = (name: string, unit: string, most: number, of: (sample: Sample) => number): Check[] =>
    peers.flatMap(peer => {
      const [early, late] = [SETTLED_MINUTE, minutes].map(minute => median(minuteOf(own(peer), minute).map(of)))
      return [
        atMost(`soak.${name}Growth ${peer}`, ratio(early, late), most, 'x'),
        note(`soak.${name} ${peer}, minute ${SETTLED_MINUTE} and last`, `${shown(early)} and ${shown(late)}`, unit)
      ]
    })
  return [
    equal('soak: promises broken', broken.length, 0),
    equal('soak: bounds broken', bounded(peers, samples).join('; '), ''),
    ...grown('rss', 'MiB', MOST_RSS_GROWTH, ({ rssMiB }) => rssMiB),
    ...grown('descriptors', '', MOST_OTHER_GROWTH, ({ descriptors }) => descriptors),
    ...grown('loopDelay', 'ms', MOST_LOOP_GROWTH, ({ loopMeanMs }) => loopMeanMs),
    ...grown('stored', 'MiB', MOST_OTHER_GROWTH, ({ storedMiB }) => storedMiB),
    ...peers.map(peer =>
      note(`soak.slowestAnswer ${peer}`, Math.max(0, ...own(peer).map(({ answerMs }) => answerMs)), 'ms')
    ),
    atLeast('soak: epochs committed', epochs, Math.floor((LEAST_EPOCHS * minutes * 60_000) / intervalMs), '')
  ]
}

/** Samples of the minute that ends then. */
function minuteOf(samples: readonly Sample[], minute: number): readonly Sample[] {
  return samples.filter(({ atMs }) => atMs >= (minute - 1) * 60_000 && atMs < minute * 60_000)
}

/** What was never seen has not stood still. */
const ratio = (early: number | undefined, late: number | undefined): number =>
  early === undefined || late === undefined ? Number.MAX_VALUE : late / early

const shown = (value: number | undefined): string => (value === undefined ? 'never seen' : String(Math.round(value)))

const median = (values: readonly number[]): number | undefined =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]
