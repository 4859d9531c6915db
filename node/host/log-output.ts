/**
 * Where the lines of a peer's log go. Whoever logs never fails over it, and no peer ends because of it: it would take its VMs with it. A
 * disk without room takes no line, a reader may be gone, and nobody is left to be told. (What pino writes with throws such an error at
 * whoever logs next, and at the end of a process tries again for ever.)
 *
 * A file is written by Node's threads, because its disk may hang. A pipe or socket (systemd's journal) is written at once, and what it
 * does not take waits: Node's threads may all wait for a disk that hangs just when somebody wants to read why.
 */
import { fstatSync, write, writeSync } from 'node:fs'
import { hasCode } from '../errors.ts'

/** What is not taken waits, up to so many bytes; what comes then is lost, and counted. A guess: minutes of a peer in trouble. */
const MAX_WAITING_BYTES = 1 << 20
/** After an error, such as that of a pipe whose reader is slow; each time twice as long, to a second. Guesses. */
const AGAIN_MS = { first: 20, most: 1_000 }
/** At the end of the process, for a reader that is only slow. A guess: what nobody notices. */
const LAST_WORDS_MS = 500
const LOOK_AGAIN_MS = 10

/** `write` of node:fs. */
export type Write = (
  fd: number,
  bytes: Buffer,
  offset: number,
  length: number,
  position: null,
  done: (error: Error | null, written: number) => void
) => void

export interface LogOutputOptions {
  readonly maxBytes?: number
  /** Of node:fs. */
  readonly write?: Write
  readonly writeSync?: (fd: number, bytes: Buffer) => number
  /** Absent: whether it is one. */
  readonly isFile?: boolean
}

export class LogOutput {
  readonly #fd: number
  readonly #isFile: boolean
  readonly #maxBytes: number
  readonly #write: Write
  readonly #writeSync: (fd: number, bytes: Buffer) => number
  #waiting: Buffer[] = []
  /** Of what waits and what is being written. */
  #bytes = 0
  #busy = false
  #againMs = AGAIN_MS.first
  /** Lines. */
  #lost = 0
  /** Nobody will ever read it. */
  #closed = false

  /** The options are for tests. */
  constructor(fd: number, options: LogOutputOptions = {}) {
    this.#fd = fd
    this.#maxBytes = options.maxBytes ?? MAX_WAITING_BYTES
    this.#write = options.write ?? write
    this.#writeSync = options.writeSync ?? writeSync
    this.#isFile = options.isFile ?? isFile(fd)
  }

  /** Never throws. Lines leave in their order, and whole where what takes them goes on. */
  write(line: string): void {
    if (this.#closed) return
    const bytes = Buffer.from(line)
    if (this.#bytes + bytes.length > this.#maxBytes) {
      this.#lost++
      return
    }
    if (this.#lost > 0) this.#tellLost()
    this.#push(bytes)
    this.#next()
  }

  /** For the end of the process: what waits is written now, or is lost. What a thread is just writing may come behind it. Never throws. */
  flush(): void {
    if (this.#lost > 0) this.#tellLost()
    const deadlineMs = performance.now() + LAST_WORDS_MS
    while (!this.#closed && !this.#writeNow() && performance.now() < deadlineMs) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOOK_AGAIN_MS)
    }
  }

  #push(bytes: Buffer): void {
    this.#bytes += bytes.length
    this.#waiting.push(bytes)
  }

  #tellLost(): void {
    const told = { level: 'warn', time: new Date().toISOString(), lost: this.#lost, msg: 'lines of this log were lost' }
    this.#lost = 0
    this.#push(Buffer.from(`${JSON.stringify(told)}\n`))
  }

  #next(): void {
    if (this.#busy || this.#waiting.length === 0) return
    if (!this.#isFile) {
      if (!this.#writeNow()) this.#later()
      return
    }
    this.#busy = true
    const bytes = this.#waiting.length === 1 ? (this.#waiting[0] as Buffer) : Buffer.concat(this.#waiting)
    this.#waiting = []
    this.#write(this.#fd, bytes, 0, bytes.length, null, (error, written) => {
      this.#busy = false
      if (error === null) this.#took(written)
      const done = error === null ? written : 0
      if (done < bytes.length) this.#waiting.unshift(bytes.subarray(done))
      if (error === null) this.#next()
      else this.#later()
    })
  }

  /** False: not all was taken. */
  #writeNow(): boolean {
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      try {
        const written = this.#writeSync(this.#fd, first)
        this.#took(written)
        if (written < first.length) this.#waiting[0] = first.subarray(written)
        else this.#waiting.shift()
      } catch (error) {
        if (hasCode(error, 'EPIPE')) this.#close()
        return this.#closed
      }
    }
    return true
  }

  #took(bytes: number): void {
    this.#bytes -= bytes
    this.#againMs = AGAIN_MS.first
  }

  #later(): void {
    if (this.#closed) return
    this.#busy = true
    const goOn = (): void => {
      this.#busy = false
      this.#next()
    }
    setTimeout(goOn, this.#againMs).unref()
    this.#againMs = Math.min(2 * this.#againMs, AGAIN_MS.most)
  }

  #close(): void {
    this.#closed = true
    this.#waiting = []
    this.#bytes = 0
  }
}

function isFile(fd: number): boolean {
  try {
    return fstatSync(fd).isFile()
  } catch {
    return false // it was closed before this process began: what is written fails
  }
}
