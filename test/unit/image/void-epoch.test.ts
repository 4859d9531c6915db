/** What an image worker does about an epoch that is void. */
import { connect } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createImageWorker } from '../../../node/image/image-worker.ts'
import { frameLog } from '../frame-logs.ts'
import { withDirectory } from '../store-support.ts'
import { factsOf, fakeMachine, MemoryCluster, pageOf, quietLog, snapshotStream } from './support.ts'

test('what was written for an epoch is put no more when it is void, and only then', async () => {
  const forgotten: string[] = []
  const cluster = Object.assign(new MemoryCluster(), { forgetStream: (stream: string) => void forgotten.push(stream) })
  const worker = await createImageWorker({
    ...factsOf({ shape: { k: 3, m: 2, symbolBytes: 16_384 } }),
    cluster,
    log: quietLog
  })
  await withDirectory(async dir => {
    const take = async (epoch: number): Promise<void> => {
      const socketPath = join(dir, `${epoch}`)
      const holders = ['a', 'b', 'c', 'd', 'e']
      const capture = await worker.capture({ generation: 3, epoch, socketPath, holders })
      connect(socketPath).end(snapshotStream(fakeMachine(new Map([[1, pageOf(epoch)]]), 1)))
      await capture.finish(frameLog([]))
    }
    await take(1)
    worker.commit(1)
    await take(2)
    worker.abort(1) // long decided
    expect(forgotten).toEqual([])
    worker.abort(2)
    expect(forgotten).toEqual(['g/v/3/2'])
    await take(3)
    worker.commit(3)
  })
  expect(forgotten).toHaveLength(1)
  await worker.close()
})
