/**
 * Where the lines of a peer's log go. Whoever logs never fails over it, and no peer ends because of it: it would take its VMs with it. A
 * disk without room takes no line, a reader may be gone, and nobody is left to be told. (What pino writes with throws such an error at
 * whoever logs next, and at the end of a process tries again for ever.)
 */
import { write, writeSync } from 'node:fs'

/** What is not taken waits, up to so many bytes; what comes then is lost. A guess: minutes of a peer in trouble. */
const MAX_WAITING_BYTES = 1 << 20
/** After an error, such as that of a pipe whose reader is slow. A guess. */
const AGAIN_MS = 20

/** `write` of node:fs. */
export type Write = (
  fd: number,
  bytes: Buffer,
  offset: number,
  length: number,
  position: null,
  done: (error: Error | null, written: number) => void
) => void

export class LogOutput {
  readonly #fd: number
  readonly #maxBytes: number
  #waiting: Buffer[] = []
  /** Of what waits and what is being written. */
  #bytes = 0
  #busy = false
  readonly #write: Write

  /** The rest is for tests. */
  constructor(fd: number, maxBytes = MAX_WAITING_BYTES, writing: Write = write) {
    this.#fd = fd
    this.#maxBytes = maxBytes
    this.#write = writing
  }

  /** Never throws. Lines leave in their order, and whole where what takes them goes on. */
  write(line: string): void {
    const bytes = Buffer.from(line)
    if (this.#bytes + bytes.length > this.#maxBytes) return
    this.#bytes += bytes.length
    this.#waiting.push(bytes)
    this.#next()
  }

  /** For the end of the process: what waits is written now, or is lost. Never throws. */
  flush(): void {
    const bytes = Buffer.concat(this.#waiting.splice(0))
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#fd, bytes, at)
    } catch {
      // There is no later time at which it could be tried again.
    }
  }

  #next(): void {
    if (this.#busy || this.#waiting.length === 0) return
    this.#busy = true
    const bytes = Buffer.concat(this.#waiting.splice(0))
    this.#write(this.#fd, bytes, 0, bytes.length, null, (error, written) => {
      const done = error === null ? written : 0
      this.#bytes -= done
      if (done < bytes.length) this.#waiting.unshift(bytes.subarray(done))
      if (error === null) this.#goOn()
      else setTimeout(() => this.#goOn(), AGAIN_MS).unref()
    })
  }

  #goOn(): void {
    this.#busy = false
    this.#next()
  }
}
