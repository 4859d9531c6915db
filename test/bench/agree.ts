/**
 * Do disk and RAM agree? A real VM counts in RAM and, with fsync, in a file on ext4 and on a second disk, as fast as it can,
 * and writes other blocks at random besides (`../guest/counter.c`). It is cut at random times, in both ways of capture; some
 * epochs come to nothing, and layers are merged while it runs. Every image that is committed is judged while the VM goes on
 * (`agree-judge.ts`, whose head says what may differ). After some cuts the VM is ended and goes on from its last image, in the
 * other way of capture: so disks are also cut that are still read from the shards, and images that lean on older lives.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { UsageError } from '../../node/errors.ts'
import type { ImageManifest } from '../../node/ports.ts'
import { quantile } from '../../protocols/epoch/cut-profile.ts'
import { atLeast, type Check, equal, note } from '../measure.ts'
import { seeded } from '../sim/swim-world.ts'
import { type Judged, Judge } from './agree-judge.ts'
import { AgreeRig, type Life, type Mode } from './agree-rig.ts'
import type { Measured, OptionValues } from './list.ts'

const CUTS = 100
/** Between two lives of the VM. */
const CUTS_A_LIFE = 10
const ABORTED_PART = 0.2
/** From one cut to the next, evenly: from a few steps of the counter to some commits of ext4's journal. */
const WAIT_MS = [20, 500] as const
/** Blocks of 4 KiB at random places of another file, without fsync. */
const BLOCKS_A_SECOND = 200
/** Images that are judged at the same time. */
const JUDGES = 2
const REPORT_EVERY = 10

interface Choices {
  readonly cuts: number
  readonly seed: number
  readonly late: boolean
}

interface Found {
  readonly judged: readonly Judged[]
  readonly aborted: number
  readonly lives: number
}

export async function measureAgree(progress: (line: string) => void, options: OptionValues): Promise<Measured> {
  const choices = choicesOf(options)
  const rig = await AgreeRig.open()
  try {
    const found = await cutAndJudge(rig, choices, progress)
    return measured(rig, choices, found)
  } finally {
    await rig.close()
  }
}

async function cutAndJudge(rig: AgreeRig, { cuts, seed, late }: Choices, progress: (line: string) => void) {
  const random = seeded(seed)
  const judge = new Judge(rig)
  const judged: Judged[] = []
  const all: Promise<void>[] = []
  const underway = new Set<Promise<void>>()
  let [aborted, lives, committed] = [0, 1, 0]
  progress('the VM boots')
  let life: Life = await rig.boot('dirty')
  try {
    await life.told('write', `${BLOCKS_A_SECOND}`)
    let last: ImageManifest | undefined
    while (committed < cuts) {
      if (last !== undefined && committed % CUTS_A_LIFE === 0 && lives <= committed / CUTS_A_LIFE) {
        await life.end()
        life = await rig.restore(last, lives++ % 2 === 0 ? 'dirty' : 'portable')
      }
      await sleep(WAIT_MS[0] + random() * (WAIT_MS[1] - WAIT_MS[0]))
      const isAborted = random() < ABORTED_PART
      const taken = await life.cut({ aborted: isAborted, late })
      if (isAborted) {
        aborted++
        continue
      }
      committed++
      last = taken.image
      const judging = judge.judge(taken).then(verdict => {
        judged.push(verdict)
        if (judged.length % REPORT_EVERY === 0) progress(lineOf(judged))
      })
      all.push(judging)
      const ended = judging.catch(() => {}).then(() => void underway.delete(ended)) // told at the end
      underway.add(ended)
      if (underway.size >= JUDGES) await Promise.race(underway)
    }
    await Promise.all(all)
    return { judged: judged.sort((a, b) => a.epoch - b.epoch), aborted, lives }
  } finally {
    await Promise.all(underway)
    await life.end()
  }
}

const bad = (judged: readonly Judged[], what: 'disagreements' | 'unclean'): Judged[] =>
  judged.filter(verdict => verdict[what].length > 0)

const lineOf = (judged: readonly Judged[]): string =>
  `${judged.length} images, ${bad(judged, 'disagreements').length} disagree, ${bad(judged, 'unclean').length} not clean`

function measured(rig: AgreeRig, { cuts, seed, late }: Choices, { judged, aborted, lives }: Found): Measured {
  const inStep = judged.filter(({ ram, synced }) => ram > synced)
  const onFirst = inStep.filter(({ ram, onDisks: [first] }) => first === ram)
  const steps = (judged.at(-1)?.synced ?? 0) - (judged[0]?.synced ?? 0)
  const some = (name: string, value: number): Check => (cuts >= CUTS ? atLeast(name, value, 1, '') : note(name, value))
  const wrong = judged.filter(({ disagreements, unclean }) => disagreements.length + unclean.length > 0)
  return {
    accel: rig.hypervisor.accel,
    checks: [
      equal('images restored and judged', judged.length, cuts),
      equal('images whose disks and RAM disagree', bad(judged, 'disagreements').length, 0),
      equal('images whose ext4 is not clean', bad(judged, 'unclean').length, 0),
      // Without these all would agree that stands still.
      some('images cut in the middle of a step', inStep.length),
      some('of them with the number on ext4 already', onFirst.length),
      some('epochs that came to nothing', aborted),
      note('lives of the VM', lives),
      note('steps counted between two images', Math.round(steps / Math.max(1, judged.length - 1))),
      ...(['dirty', 'portable'] as const).flatMap(mode => pauseChecks(mode, judged)),
      note(
        'restore p50',
        quantile(
          judged.map(({ restoreMs }) => restoreMs),
          0.5
        ),
        'ms'
      )
    ],
    details: { cuts, seed, late, judged },
    text: wrong.map(
      ({ epoch, disagreements, unclean }) => `epoch ${epoch}: ${[...disagreements, ...unclean].join('; ')}`
    )
  }
}

function pauseChecks(mode: Mode, judged: readonly Judged[]): Check[] {
  const pausesMs = judged.filter(each => each.mode === mode).map(({ pauseMs }) => pauseMs)
  if (pausesMs.length === 0) return []
  return [
    note(`${mode}: images`, pausesMs.length),
    note(`${mode}: pause p50`, quantile(pausesMs, 0.5), 'ms'),
    note(`${mode}: pause, longest`, quantile(pausesMs, 1), 'ms')
  ]
}

function choicesOf({ cuts = String(CUTS), seed = '1', sabotage }: OptionValues): Choices {
  for (const [name, text] of Object.entries({ cuts, seed })) {
    if (!/^[1-9]\d{0,8}$/.test(text))
      throw new UsageError('BENCH_USAGE', `--${name}: expected a number from 1, not ${text}`)
  }
  if (sabotage !== undefined && sabotage !== 'late-layer')
    throw new UsageError('BENCH_USAGE', `--sabotage: expected "late-layer", not ${sabotage}`)
  return { cuts: Number(cuts), seed: Number(seed), late: sabotage === 'late-layer' }
}
