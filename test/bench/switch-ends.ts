/** The two ends of a switch under measurement, in a thread of their own: one sends, the other receives. */
import { once } from 'node:events'
import net from 'node:net'
import { parentPort, workerData } from 'node:worker_threads'

export interface SwitchLoad {
  readonly fromPath: string
  readonly toPath: string
  /** The frame with its length before it. */
  readonly packet: Uint8Array
  readonly durationMs: number
  readonly singles: number
}

export interface SwitchRate {
  readonly framesPerS: number
  readonly gbitPerS: number
  /** From writing one frame to reading it, with nothing else under way. */
  readonly oneWayMedianUs: number
  readonly oneWayP99Us: number
}

/** Sent and not yet received: more only fills the switch's queue. */
const WINDOW_BYTES = 512 * 1024
const CHUNK_BYTES = 64 * 1024

const { fromPath, toPath, packet, durationMs, singles } = workerData as SwitchLoad
const from = net.connect(fromPath)
const to = net.connect(toPath)
await Promise.all([once(from, 'connect'), once(to, 'connect')])
const { frames, seconds } = await flood()
const times = (await oneByOne()).toSorted((a, b) => a - b)
const rate: SwitchRate = {
  framesPerS: frames / seconds,
  gbitPerS: (frames * (packet.length - 4) * 8) / seconds / 1e9,
  oneWayMedianUs: (times[Math.floor(singles * 0.5)] ?? Infinity) * 1000,
  oneWayP99Us: (times[Math.floor(singles * 0.99)] ?? Infinity) * 1000
}
parentPort?.postMessage(rate)
from.destroy()
to.destroy()

function flood(): Promise<{ frames: number; seconds: number }> {
  const chunk = Buffer.concat(Array<Uint8Array>(Math.ceil(CHUNK_BYTES / packet.length)).fill(packet))
  const begin = performance.now()
  let sent = 0
  let got = 0
  return new Promise(resolve => {
    const pump = (): void => {
      if (performance.now() - begin < durationMs) {
        for (; sent - got < WINDOW_BYTES; sent += chunk.length) from.write(chunk)
      } else if (got === sent) {
        to.off('data', onData)
        resolve({ frames: got / packet.length, seconds: (performance.now() - begin) / 1000 })
      }
    }
    const onData = (data: Buffer): void => {
      got += data.length
      pump()
    }
    to.on('data', onData)
    pump()
  })
}

async function oneByOne(): Promise<number[]> {
  const taken: number[] = []
  while (taken.length < singles) {
    const begin = performance.now()
    from.write(packet)
    for (let got = 0; got < packet.length; ) got += ((await once(to, 'data')) as [Buffer])[0].length
    taken.push(performance.now() - begin)
  }
  return taken
}
