/**
 * What passed between this peer and others, written down as it left and came: one line of JSON for the frames that one
 * VM sent in one batch. Whoever asks afterwards who spoke when (a test of fencing, an operator) reads it; the time is
 * CLOCK_MONOTONIC of the host, the same for all its processes. Lines are with the kernel when `note` returns, so that
 * a killed peer has told everything.
 */
import { closeSync, openSync, renameSync, statSync, writeSync } from 'node:fs'
import { decodeBatch } from '../../protocols/frames/records.ts'
import type { PeerId } from '../../protocols/core.ts'
import { messageOf, UsageError } from '../errors.ts'
import type { Log } from '../ports.ts'

/**
 * What became of a batch. taken: its generation is the group's (a frame of it may still be refused for its source or its
 * number). fenced: the same, but this peer's lease has run out, and nothing is given to a VM before it is regained. old:
 * refused, its generation is over. early: it waits for a generation that this peer has not heard of.
 */
export type Verdict = 'sent' | 'taken' | 'fenced' | 'old' | 'early'

export interface Trace {
  /** `message` is a batch of frames that leaves to `peer` or has come from it. */
  note(direction: 'out' | 'in', verdict: Verdict, peer: PeerId, message: Uint8Array): void
  close(): void
}

export interface TraceLine {
  readonly ms: number
  readonly direction: 'out' | 'in'
  readonly verdict: Verdict
  readonly peer: PeerId
  readonly group: string
  readonly generation: number
  /** The sender, and its colour. */
  readonly vm: string
  readonly epoch: number
  readonly frames: number
  /** Records that say that the sender's colour has turned: no frames. */
  readonly turns: number
  /** Of the frames. */
  readonly bytes: number
}

/** Then the file becomes FILE.1 and a new one begins: at most twice this is kept. About 400,000 lines; a guess. */
const MAX_BYTES = 64 << 20
/** The length before a frame. */
const PREFIX_BYTES = 4

/** Appends to `path`. UsageError TRACE_FILE. */
export function openTrace(path: string, log: Log, maxBytes = MAX_BYTES): Trace {
  try {
    return new TraceFile(path, log, maxBytes)
  } catch (cause) {
    throw new UsageError('TRACE_FILE', `cannot write switch.traceFile ${path}: ${messageOf(cause)}`, { cause })
  }
}

class TraceFile implements Trace {
  readonly #path: string
  readonly #log: Log
  readonly #maxBytes: number
  #file: number | undefined
  #bytes: number

  constructor(path: string, log: Log, maxBytes: number) {
    this.#path = path
    this.#log = log
    this.#maxBytes = maxBytes
    this.#file = openSync(path, 'a', 0o600)
    this.#bytes = statSync(path).size
  }

  note(direction: 'out' | 'in', verdict: Verdict, peer: PeerId, message: Uint8Array): void {
    if (this.#file === undefined) return
    const ms = Number(process.hrtime.bigint()) / 1e6
    const text = Buffer.from(
      linesOf(message)
        .map(line => `${JSON.stringify({ ms, direction, verdict, peer, ...line })}\n`)
        .join('')
    )
    try {
      writeSync(this.#file, text)
      this.#bytes += text.length
      if (this.#bytes >= this.#maxBytes) this.#rotate()
    } catch (error) {
      this.#log.error({ path: this.#path, error: messageOf(error) }, 'frames are traced no longer')
      this.close()
    }
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file)
    this.#file = undefined
  }

  #rotate(): void {
    this.close()
    renameSync(this.#path, `${this.#path}.1`)
    this.#file = openSync(this.#path, 'a', 0o600)
    this.#bytes = 0
  }
}

/** One for each VM and colour, in the order in which they come. */
function linesOf(message: Uint8Array): Omit<TraceLine, 'ms' | 'direction' | 'verdict' | 'peer'>[] {
  const { group, generation, records } = decodeBatch(message)
  const lines = new Map<string, { vm: string; epoch: number; frames: number; turns: number; bytes: number }>()
  for (const { source: vm, colour: epoch, packet } of records) {
    const key = `${epoch} ${vm}`
    let line = lines.get(key)
    if (line === undefined) {
      line = { vm, epoch, frames: 0, turns: 0, bytes: 0 }
      lines.set(key, line)
    }
    if (packet === undefined) line.turns++
    else {
      line.frames++
      line.bytes += packet.length - PREFIX_BYTES
    }
  }
  return [...lines.values()].map(line => ({ group, generation, ...line }))
}
