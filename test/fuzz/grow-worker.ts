/** A thread that grows one target's inputs and tells what came of it: one that hangs or dies takes nothing else with it. */
import { parentPort, workerData } from 'node:worker_threads'
import { grownOf } from './corpus.ts'
import { grow } from './grow.ts'
import { targets } from './targets.ts'

export interface GrowWish {
  readonly name: string
  readonly seed: number
  readonly ms: number
}

const { name, seed, ms } = workerData as GrowWish
const target = targets.find(each => each.name === name)
if (target === undefined) throw new TypeError(`no target ${name}`)
parentPort?.postMessage(await grow(target, { seed, untilMs: performance.now() + ms, known: grownOf(name) }))
