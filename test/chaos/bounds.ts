/** What a peer may take of its host while it is broken again and again: bounds, and how much more it may be at the end. Pure. */

/** Of a peer. Far above what one takes: 130 to 250 MB, 60 to 120 descriptors. */
export const MOST_RSS_MIB = 768
export const MOST_DESCRIPTORS = 512
/** Of its disk, when nobody else fills it. */
export const MOST_DISK = 0.8
/** How late a peer answers a question that costs it nothing, on two busy cores. */
export const MOST_ANSWER_MS = 5_000
/**
 * Of the delay of its event loop, with the 20 ms between two looks at it. Ten times what nine of ten samples were below in half an hour of
 * the random mix on two busy cores, 96 ms; the worst of 168 was 469.
 */
export const MOST_LOOP_P99_MS = 1_000
/** What is at the end of a run at most, by what was at its first third. */
export const MOST_GROWTH = 1.5
/**
 * What is stored at the end, by what was at first: an image that is whole in one stream at first leans on up to four times its own size
 * later (`node/image/stream-choice.ts`), a step of the whole image at a time. Seen after half an hour of the random mix: 1.9 to 2.9.
 */
export const MOST_STORED_GROWTH = 4
/** In these an image has not grown yet. */
const FIRST_SAMPLES = 3
/** Fewer samples than this show no trend: a round gives one of each peer. */
const TREND_SAMPLES = 30
/** Of one life of a peer in which it ran no more VMs at once. */
const STAGE_SAMPLES = 9

/** Of one peer, at one moment without faults. */
export interface Sample {
  readonly peer: string
  /** Of its process: another is another life. */
  readonly pid: number
  /** Since the bank worked. */
  readonly atMs: number
  /** Resident memory, and of it what no file backs. */
  readonly rssMiB: number
  readonly anonMiB: number
  /** In use on V8's heap, what V8 has taken for it, and buffers outside of it. */
  readonly heapMiB: number
  readonly heapTakenMiB: number
  readonly externalMiB: number
  readonly descriptors: number
  /** That it runs. */
  readonly vms: number
  /** VMs that went on at it from snapshots, in this life. */
  readonly restores: number
  /** Of its disk, 0 to 1. */
  readonly disk: number
  /** All files of its data folder. */
  readonly storedMiB: number
  /** Until it had answered. */
  readonly answerMs: number
  /** Delay of its event loop since its metrics were asked for before, with what lies between two looks at it (20 ms). */
  readonly loopMeanMs: number
  readonly loopP99Ms: number
}

/** `peers`: all that there are. Of one that was never seen nothing is known, which is red, too. */
export function bounded(peers: readonly string[], samples: readonly Sample[]): string[] {
  return peers.flatMap(peer => {
    const own = samples.filter(sample => sample.peer === peer)
    if (own.length === 0) return [`${peer}: what it takes was never seen`]
    const over = (what: string, bound: number, of: (sample: Sample) => number) => {
      const most = Math.max(...own.map(of))
      return most <= bound ? [] : [`${peer}: ${what} is ${Math.round(most * 100) / 100}, above ${bound}`]
    }
    const third = Math.floor(own.length / 3)
    // By medians: a peer that was restarted begins small again.
    const grown = (what: string, of: (sample: Sample) => number, early = third, bound = MOST_GROWTH): string[] => {
      const [first, last] = [own.slice(0, early), own.slice(-third)].map(each => median(each.map(of)))
      if (own.length < TREND_SAMPLES || first === undefined || last === undefined || last <= first * bound) return []
      return [`${peer}: ${what} grew from ${first.toFixed(2)} to ${last.toFixed(2)}`]
    }
    // Nothing grows from one life into the next. Within one a peer that has run a VM takes twice what one does that has not, and what
    // malloc has taken for VMs that are gone it keeps for the next: before and after are compared where it ran as many at once at most.
    // At their most but for single moments: a life may end just after something large was let go.
    const grownInLife = (what: string, of: (sample: Sample) => number): string[] =>
      own.length < TREND_SAMPLES
        ? []
        : stages(own).flatMap(stage => {
            const part = Math.floor(stage.length / 3)
            const [first, last] = [stage.slice(0, part), stage.slice(-part)].map(each => most(each.map(of))) as [
              number,
              number
            ]
            if (stage.length < STAGE_SAMPLES || last <= first * MOST_GROWTH) return []
            return [`${peer}: ${what} grew from ${first.toFixed(2)} to ${last.toFixed(2)} within one life of it`]
          })
    return [
      ...over('resident memory (MiB)', MOST_RSS_MIB, ({ rssMiB }) => rssMiB),
      ...over('open descriptors', MOST_DESCRIPTORS, ({ descriptors }) => descriptors),
      ...over('disk in use', MOST_DISK, ({ disk }) => disk),
      ...over('answer (ms)', MOST_ANSWER_MS, ({ answerMs }) => answerMs),
      ...over('delay of the event loop (ms, 99 %)', MOST_LOOP_P99_MS, ({ loopP99Ms }) => loopP99Ms),
      ...grownInLife('resident memory (MiB)', ({ rssMiB }) => rssMiB),
      ...grownInLife('open descriptors', ({ descriptors }) => descriptors),
      ...grown('delay of the event loop (ms, mean)', ({ loopMeanMs }) => loopMeanMs),
      ...grown('what it stores (MiB)', ({ storedMiB }) => storedMiB, FIRST_SAMPLES, MOST_STORED_GROWTH)
    ]
  })
}

/** Samples of one process each, for as long as the most VMs that it has run at once stay as many. */
function stages(samples: readonly Sample[]): Sample[][] {
  const all: Sample[][] = []
  let [pid, atMost] = [0, 0]
  for (const sample of samples) {
    // One that came and went between two samples has left its restore.
    const ran = Math.max(sample.vms, Math.min(1, sample.restores))
    if (sample.pid !== pid || ran > atMost) {
      atMost = ran
      pid = sample.pid
      all.push([])
    }
    all.at(-1)?.push(sample)
  }
  return all
}

/** But for a fifth, and for one at least. */
const most = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.max(0, Math.floor(0.8 * values.length) - 1)] ?? 0

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0
