import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { expect, test } from 'vitest'
import { stoodStill } from '../../../node/image/thread-end.ts'

/** Ended at once, such threads had taken the process with them after 4 to 50 of these. */
const THREADS = 30

test('ending a thread that packs ends nothing else', { timeout: 60_000 }, async () => {
  for (let n = 0; n < THREADS; n++) {
    const thread = new Worker(new URL('./packing-thread.ts', import.meta.url))
    await once(thread, 'message')
    await stoodStill(flag => {
      thread.postMessage(flag)
      return once(thread, 'error')
    })
    expect(await thread.terminate()).toBe(1)
  }
})

test('a thread that is gone is not waited for', async () => {
  await expect(stoodStill(() => Promise.reject(new Error('it has ended')))).resolves.toBeUndefined()
})
