/**
 * GENI-VIOLIN's buffers were exhausted at 10 Mb/s. Here a VM sends 500 Mb/s for a forced skew of four seconds to one that
 * is cut four seconds later (all of it early: held), and to one that was cut four seconds before (all of it in flight:
 * recorded, and given to the VM besides). Through the switch, with the memory limit of its default config, the rest on the
 * disk under the temporary folder. Nothing may be lost or change places, and no step may keep the event loop.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { UsageError } from '../../node/errors.ts'
import { PacketCutter } from '../../node/switch/packets.ts'
import type { NicPort } from '../../node/ports.ts'
import type { VirtualSwitch } from '../../node/switch/switch.ts'
import { cut, frameOf, idOf } from '../contract/switch-support.ts'
import { SwitchWorld } from '../contract/switch-world.ts'
import { atMost, type Check, equal, note } from '../measure.ts'
import type { Measured, OptionValues } from './list.ts'
import type { Flow, Received } from './switch-flow.ts'

const BITS_PER_S = 500e6
/** Unless told. */
const SKEW_SECONDS = 4
const FRAME_BYTES = 1514
/** The defaults of config/schema.ts. */
const MEMORY_BYTES = 64 << 20
const DISK_BYTES = 4096 * 2 ** 20
/** What one step of the switch may take from everything else in the peer. */
const STALL_MS = 20
const OWNERS = { a: 'p1', b: 'p1' }

/** What is sent from one cut to the other. */
interface Load {
  readonly frames: number
  readonly skewMs: number
}

export async function measureBuffers(progress: (line: string) => void, options: OptionValues): Promise<Measured> {
  const load = readLoad(options)
  const { frames, skewMs } = load
  const checks: Check[] = []
  for (const kind of ['held', 'recorded'] as const) {
    progress(`${kind}: ${frames} frames in ${skewMs / 1000} s`)
    checks.push(...(await measure(kind, load)))
  }
  return { checks, details: { framesPerRun: frames, frameBytes: FRAME_BYTES, skewMs, bitsPerS: BITS_PER_S } }
}

function readLoad({ seconds = `${SKEW_SECONDS}` }: OptionValues): Load {
  if (!/^[1-9]$/.test(seconds))
    throw new UsageError('BENCH_USAGE', `--seconds takes a whole number from 1 to 9, not ${JSON.stringify(seconds)}`)
  const skewMs = Number(seconds) * 1_000
  return { skewMs, frames: Math.round((BITS_PER_S * skewMs) / 8000 / FRAME_BYTES) }
}

async function measure(kind: 'held' | 'recorded', load: Load): Promise<Check[]> {
  const { frames } = load
  const directory = await mkdtemp(join(tmpdir(), 'diapause-bench-'))
  const room = { directory: join(directory, 'frames'), memoryBytes: MEMORY_BYTES, diskBytes: DISK_BYTES }
  const world = await SwitchWorld.open({ room })
  try {
    world.setGroup(OWNERS)
    const [a, b] = [await world.attach('a', OWNERS), await world.attach('b', OWNERS)]
    const ends = startEnds(world, load)
    await a.release()
    await b.release()
    await cut(kind === 'held' ? a : b, 1)
    const watch = watchSwitch(world.at('p1'))
    await ends.sent
    const sentMs = performance.now()
    await cut(kind === 'held' ? b : a, 1)
    const [inLog, received] = await Promise.all([readLog(b), ends.received])
    const tookMs = performance.now() - sentMs
    const { most, longestStepMs } = watch.stop()
    const { droppedFull, lost, droppedLate } = world.at('p1').stats()
    return [
      equal(`${kind}: frames dropped`, droppedFull + lost + droppedLate, 0),
      equal(`${kind}: frames delivered in their order`, received.inOrder, frames),
      equal(`${kind}: frames in the image`, inLog, kind === 'held' ? 0 : frames),
      atMost(`${kind}: memory of frames that wait, most`, most.memory / 2 ** 20, (4 * MEMORY_BYTES) / 2 ** 20, 'MiB'),
      note(`${kind}: disk of frames that wait, most`, most.disk / 2 ** 20, 'MiB'),
      note(`${kind}: memory of the process, most`, most.rss / 2 ** 20, 'MiB'),
      atMost(`${kind}: longest step on the processor`, longestStepMs, STALL_MS, 'ms'),
      note(`${kind}: all delivered and read after the last cut in`, tookMs, 'ms')
    ]
  } finally {
    await world.close()
    await rm(directory, { recursive: true })
  }
}

/** Sender and receiver in a thread of their own. */
function startEnds(
  world: SwitchWorld,
  { frames, skewMs }: Load
): { readonly sent: Promise<void>; readonly received: Promise<Received> } {
  const packetOf: Flow = {
    fromPath: world.pathOf('a'),
    toPath: world.pathOf('b'),
    frame: frameOf('a', 'b', 0, FRAME_BYTES),
    frames,
    durationMs: skewMs
  }
  const worker = new Worker(new URL('switch-flow.ts', import.meta.url), { workerData: packetOf })
  const sent = Promise.withResolvers<void>()
  const received = Promise.withResolvers<Received>()
  worker.on('message', (message: 'sent' | Received) => {
    if (message === 'sent') sent.resolve()
    else received.resolve(message)
  })
  worker.on('error', error => {
    sent.reject(error)
    received.reject(error)
  })
  return { sent: sent.promise, received: received.promise }
}

/** Reads as the image worker does, which asks from another thread: a turn of the event loop for each piece. The result is how many frames came in their order. */
async function readLog(nic: NicPort): Promise<number> {
  let inOrder = 0
  for await (const piece of (await nic.recorded(1)).pieces()) {
    new PacketCutter().push(piece, packet => {
      if (idOf(packet.subarray(4)) === inOrder) inOrder++
    })
    await nextTurn()
  }
  return inOrder
}

/**
 * The longest step is what the main thread spent on the processor between two ticks of a timer: other programs that take
 * the processor away do not count, collecting garbage does.
 */
function watchSwitch(watched: VirtualSwitch) {
  const most = { memory: 0, disk: 0, rss: 0 }
  let longestStepMs = 0
  let before = cpuMs()
  const timer = setInterval(() => {
    const now = cpuMs()
    longestStepMs = Math.max(longestStepMs, now - before)
    const { waitingMemoryBytes, waitingDiskBytes } = watched.stats()
    most.memory = Math.max(most.memory, waitingMemoryBytes)
    most.disk = Math.max(most.disk, waitingDiskBytes)
    most.rss = Math.max(most.rss, process.memoryUsage.rss())
    before = cpuMs()
  }, 1)
  return {
    stop: () => {
      clearInterval(timer)
      return { most, longestStepMs }
    }
  }
}

function cpuMs(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}
