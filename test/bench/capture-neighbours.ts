/**
 * What one VM of a group has committed on a host, another must not ship again: a library that both have loaded, a file that both
 * have cached. Two image workers, no machines: one captures random bytes, which nothing packs, and commits; in the next epoch
 * the other has the same bytes at other places.
 */
import { randomFillSync } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createImageWorker } from '../../node/image/image-worker.ts'
import { SharedContents } from '../../node/image/shared-contents.ts'
import type { ImageWorker } from '../../node/ports.ts'
import { quietLog } from '../contract/real-clock.ts'
import { atMost, note } from '../measure.ts'
import { frameLog } from '../unit/frame-logs.ts'
import { fakeMachine, snapshotStream } from '../unit/image/support.ts'
import type { Progress, Section } from './capture-sections.ts'
import { HOLDERS, SHAPE, Sink } from './capture-sink.ts'

const MEMORY_MIB = 128
const MIB = 1_048_576
const PAGE = 4096
const PAGES = (MEMORY_MIB * MIB) / PAGE
/** Of the bytes that changed, what may be shipped: tables, and what the first epoch ships besides. Ours, as is the size. */
const PART = 0.1
/** Between epochs, as in any group: one VM hears of another's within milliseconds. */
const APART_MS = 1_000

interface Taken {
  readonly shippedBytes: number
  readonly seconds: number
}

export async function measureNeighbours(folder: string, progress: Progress): Promise<Section> {
  progress(`two VMs of a group with the same ${MEMORY_MIB} MiB`)
  const ram = Array.from({ length: PAGES }, () => randomFillSync(Buffer.allocUnsafe(PAGE)))
  const own = streamOf(ram)
  const moved = streamOf(ram.toReversed())
  const empty = streamOf([])
  const [neighbours, cluster] = [new SharedContents(), new Sink(folder)]
  const [one, two] = await Promise.all(['one', 'two'].map(vm => open(vm, cluster, neighbours)))
  if (one === undefined || two === undefined) throw new TypeError('two workers')
  try {
    const epochs: { readonly one: Taken; readonly two: Taken }[] = []
    for (const [i, other] of [empty, moved].entries()) {
      const take = (worker: ImageWorker, name: string, stream: Buffer) =>
        capture(worker, i + 1, join(folder, `neighbours-${name}${i}`), stream)
      epochs.push({ one: await take(one, 'one', own), two: await take(two, 'two', other) })
      for (const worker of [one, two]) worker.commit(i + 1)
      await sleep(APART_MS)
    }
    const [first, second] = epochs
    const shipped = second?.two.shippedBytes ?? Number.NaN
    const what = `${MEMORY_MIB} MiB of random bytes`
    const checks = [
      note(`neighbours: ${what} captured by one VM: shipped`, (first?.one.shippedBytes ?? Number.NaN) / MIB, 'MiB'),
      note('neighbours: the same', first?.one.seconds ?? Number.NaN, 's'),
      note('neighbours: then by another, at other places: shipped', shipped / MIB, 'MiB'),
      note('neighbours: the same', second?.two.seconds ?? Number.NaN, 's'),
      atMost(
        'neighbours: shipped by the second of two VMs for a byte that both have',
        shipped / (MEMORY_MIB * MIB),
        PART,
        ''
      )
    ]
    return { checks, details: { neighbours: epochs }, accel: '' }
  } finally {
    await Promise.all([one.close(), two.close()])
  }
}

const streamOf = (ram: readonly Buffer[]): Buffer => snapshotStream(fakeMachine(new Map(ram.entries()), MEMORY_MIB))

const open = (vm: string, cluster: Sink, neighbours: SharedContents): Promise<ImageWorker> =>
  createImageWorker({
    group: 'capture',
    vm,
    memoryMiB: MEMORY_MIB,
    disks: [],
    accel: 'tcg',
    key: new Uint8Array(32).fill(9),
    shape: SHAPE,
    cluster,
    log: quietLog,
    neighbours
  })

async function capture(worker: ImageWorker, epoch: number, socketPath: string, stream: Buffer): Promise<Taken> {
  const startedMs = performance.now()
  const capturing = await worker.capture({ generation: 1, epoch, socketPath, holders: HOLDERS })
  const socket = connect(socketPath)
  await once(socket, 'connect')
  socket.end(stream)
  const { stats } = await capturing.finish(frameLog())
  return { shippedBytes: stats.bytesData, seconds: (performance.now() - startedMs) / 1_000 }
}
