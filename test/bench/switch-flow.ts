/** The two ends of a switch, in a thread of their own: one sends numbered frames at a steady rate, the other counts them. */
import { once } from 'node:events'
import net from 'node:net'
import { parentPort, workerData } from 'node:worker_threads'
import { PacketCutter } from '../../node/switch/packets.ts'

export interface Flow {
  readonly fromPath: string
  readonly toPath: string
  /** The number is written at its byte 14. */
  readonly frame: Uint8Array
  readonly frames: number
  readonly durationMs: number
}

export interface Received {
  /** Frames whose number was one more than that of the frame before; the first is 0. */
  readonly inOrder: number
}

const ID_AT = 4 + 14
const TICK_MS = 2
/** Nothing more comes. */
const SILENCE_MS = 5_000

const { fromPath, toPath, frame, frames, durationMs } = workerData as Flow
const from = net.connect(fromPath)
const to = net.connect(toPath)
await Promise.all([once(from, 'connect'), once(to, 'connect')])

let inOrder = 0
let next = 0
let heardMs = performance.now()
const cutter = new PacketCutter()
to.on('data', chunk => {
  heardMs = performance.now()
  cutter.push(chunk, packet => {
    const id = Buffer.from(packet.buffer, packet.byteOffset).readUInt32BE(ID_AT)
    if (id === next) inOrder++
    next = id + 1
  })
})

const begin = performance.now()
for (let sent = 0; sent < frames; ) {
  const due = Math.min(frames, Math.floor(((performance.now() - begin) / durationMs) * frames))
  if (due > sent) await write(sent, due)
  sent = due
  await new Promise(resolve => setTimeout(resolve, TICK_MS))
}
parentPort?.postMessage('sent')
heardMs = performance.now()
while (next < frames && performance.now() - heardMs < SILENCE_MS) await new Promise(resolve => setTimeout(resolve, 10))
parentPort?.postMessage({ inOrder } satisfies Received)
from.destroy()
to.destroy()

async function write(first: number, end: number): Promise<void> {
  const packetBytes = 4 + frame.length
  const burst = Buffer.alloc((end - first) * packetBytes)
  for (let id = first; id < end; id++) {
    const at = (id - first) * packetBytes
    burst.writeUInt32BE(frame.length, at)
    burst.set(frame, at + 4)
    burst.writeUInt32BE(id, at + ID_AT)
  }
  if (!from.write(burst)) await once(from, 'drain')
}
