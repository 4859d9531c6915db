/** A thread of `grow-thread.ts`: grows one target's inputs after the other's, and tells at once what it finds. */
import { parentPort, workerData } from 'node:worker_threads'
import { type Grown, grow, type GrowOptions } from './grow.ts'
import type { ThreadData } from './pool.ts'
import { Running } from './running.ts'
import type { Failure } from './run-input.ts'
import type { Target } from './target.ts'

export interface GrowWish extends GrowOptions {
  readonly name: string
}

export type GrowMessage =
  | { readonly kind: 'ready' }
  | { readonly kind: 'failed'; readonly input: Uint8Array; readonly failure: Failure }
  | { readonly kind: 'kept'; readonly input: Uint8Array }
  | { readonly kind: 'grown'; readonly grown: Grown }

const { module, shared } = workerData as ThreadData
const { targets } = (await import(module)) as { targets: readonly Target[] }
const running = new Running(shared)
const tell = (message: GrowMessage): void => parentPort?.postMessage(message)

parentPort?.on('message', (wish: GrowWish) => void growAsWished(wish))
tell({ kind: 'ready' })

async function growAsWished({ name, ...options }: GrowWish): Promise<void> {
  const target = targets.find(each => each.name === name)
  if (target === undefined) throw new TypeError(`no target ${name}`)
  const grown = await grow(target, options, {
    begins: (input, batch) => running.begins(input, batch),
    ends: () => running.ends(),
    failed: (input, failure) => tell({ kind: 'failed', input, failure }),
    kept: input => tell({ kind: 'kept', input })
  })
  tell({ kind: 'grown', grown })
}
