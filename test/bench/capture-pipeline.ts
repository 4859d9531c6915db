/**
 * How fast the image worker reads a stream of QEMU's in which nothing has changed: the stream of a real VM, as it was recorded,
 * is sent to it again and again. What counts is the processor time of the worker's thread, all in all: socket, parser, hash,
 * tables, and the end of the epoch. This thread, which sends, is not counted.
 */
import { createReadStream, readdirSync, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createImageWorker } from '../../node/image/image-worker.ts'
import { quietLog } from '../contract/real-clock.ts'
import { frameLog } from '../unit/frame-logs.ts'
import { HOLDERS, SHAPE, Sink } from './capture-sink.ts'

const VM = 'fed'

export interface Pass {
  /** Of the worker's thread. */
  readonly cpuSeconds: number
  readonly pagesChanged: number
  readonly shippedBytes: number
}

/** The first pass is of new pages, all others of unchanged ones. */
export async function feed(options: {
  accel: 'kvm' | 'tcg'
  memoryMiB: number
  folder: string
  streamPath: string
  passes: number
}): Promise<Pass[]> {
  const { folder, streamPath, accel, memoryMiB } = options
  const worker = await createImageWorker({
    group: 'capture',
    vm: VM,
    memoryMiB,
    disks: [],
    accel,
    key: new Uint8Array(32).fill(9),
    shape: SHAPE,
    cluster: new Sink(folder),
    log: quietLog
  })
  const passes: Pass[] = []
  try {
    for (let epoch = 1; epoch <= options.passes; epoch++) {
      const socketPath = join(folder, `feed${epoch}`)
      const before = threadSeconds() ?? 0 // its thread has only begun to start
      const capture = await worker.capture({ generation: 1, epoch, socketPath, holders: HOLDERS })
      await pipeline(createReadStream(streamPath, { highWaterMark: 1 << 20 }), connect(socketPath))
      const { stats } = await capture.finish(frameLog())
      passes.push({
        cpuSeconds: (threadSeconds() ?? Number.NaN) - before,
        pagesChanged: stats.pagesChanged,
        shippedBytes: stats.bytesData
      })
      worker.commit(epoch)
    }
  } finally {
    await worker.close()
  }
  return passes
}

/** Processor time of the worker's thread, the only one here: Node calls it by its name (`image-threads.ts`). */
function threadSeconds(): number | undefined {
  for (const task of readdirSync('/proc/self/task')) {
    const path = `/proc/self/task/${task}`
    if (readFileSync(`${path}/comm`, 'utf8').trim() !== 'image') continue
    return Number(readFileSync(`${path}/schedstat`, 'latin1').split(' ')[0]) / 1e9
  }
  return undefined
}
