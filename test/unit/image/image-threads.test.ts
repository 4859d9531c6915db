import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { ImageThreads } from '../../../node/image/image-threads.ts'
import { createImageWorker } from '../../../node/image/image-worker.ts'
import { factsOf, MemoryCluster, quietLog } from './support.ts'

const threads = new ImageThreads()
afterEach(() => threads.close())

test('a thread that was loaded before serves any VM, and where there is none another does', async () => {
  const shape = { k: 3, m: 2, symbolBytes: 16_384 }
  const cluster = new MemoryCluster()
  const workers = await Promise.all(
    ['v', 'w'].map(vm =>
      createImageWorker({ ...factsOf({ memoryMiB: 2, vm, shape }), cluster, log: quietLog, threads })
    )
  )
  for (const [i, worker] of workers.entries()) {
    const socketPath = join(tmpdir(), `threads-${process.pid}-${i}`)
    const capture = await worker.capture({ generation: 1, epoch: 1, socketPath, holders: ['a', 'b', 'c', 'd', 'e'] })
    await capture.cancel()
    await expect(worker.close()).resolves.toBeUndefined()
  }
})
