/** Each target in turn on all processors: its file of inputs written anew, and what that reaches as a table. */
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { table } from '../../node/edge/format.ts'
import { messageOf } from '../../node/errors.ts'
import { writeGrown } from './corpus.ts'
import type { Grown } from './grow.ts'
import type { GrowWish } from './grow-worker.ts'
import type { Target } from './target.ts'

/** Behind its time a thread still looks for the fewest inputs. One that takes longer than this hangs in one. A guess. */
const GRACE_MS = 60_000

/** `ms`: for each target. */
export async function growAll(
  targets: readonly Target[],
  { seed, ms }: { seed: number; ms: number }
): Promise<string[]> {
  const rows: string[][] = []
  const waiting = [...targets]
  const work = async (): Promise<void> => {
    for (let target = waiting.shift(); target !== undefined; target = waiting.shift()) {
      const { name } = target
      try {
        const { inputs, tried, before, after, threw } = await inThread({ name, seed, ms })
        writeGrown(name, inputs)
        rows.push([
          name,
          String(tried),
          String(inputs.length),
          String(before),
          String(after),
          threw === 0 ? '' : `${threw} threw`
        ])
      } catch (error) {
        rows.push([name, '', '', '', '', messageOf(error)])
      }
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, work))
  return table([
    ['target', 'tried', 'kept', 'blocks of seeds', 'blocks', ''],
    ...rows.sort(([a = ''], [b = '']) => (a < b ? -1 : 1))
  ])
}

async function inThread(workerData: GrowWish): Promise<Grown> {
  const worker = new Worker(new URL('./grow-worker.ts', import.meta.url), { workerData })
  try {
    return await new Promise<Grown>((resolve, reject) => {
      const late = setTimeout(
        () => reject(new Error('it hangs: npm run fuzz finds in which input')),
        workerData.ms + GRACE_MS
      )
      worker.once('message', resolve).once('error', reject)
      worker.once('exit', () => {
        clearTimeout(late)
        reject(new Error('its thread has ended'))
      })
    })
  } finally {
    await worker.terminate()
  }
}
