/**
 * The helper process that knows which pages of one VM's RAM were written (`native/tracker.c` says how, and what is on its
 * pipes). Commands are answered in order. Whatever goes wrong ends the helper, and the kernel then lifts all protection:
 * the VM goes on, untracked.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import type { Socket } from 'node:net'
import { once } from 'node:events'
import { isMainThread } from 'node:worker_threads'
import { DiapauseError } from '../errors.ts'
import type { Clock, PageRanges } from '../ports.ts'
import { handled } from './qmp.ts'

const KIND = { listening: 1, ready: 2, armed: 3, ranges: 4, error: 5 }
const HEADER_BYTES = 8
const ERROR_BYTES = 4096
/** Longest wait for an answer; a scan of 1 GB takes 1 to 3 ms (measured). 5 s, a guess, is a host in trouble. */
const ANSWER_MS = 5_000

interface Expected {
  readonly kind: number
  resolve(payload: Uint8Array): void
  reject(error: Error): void
}

const limitOf = (pages: number): number => Math.max(ERROR_BYTES, 8 * (pages + 1))

export class TrackerProcess {
  /** Resolves (never rejects) when the helper is of no more use, with the reason. */
  readonly ended: Promise<DiapauseError>
  /** Without pipes where no descriptor was free for them; then its end is told at once. */
  readonly #child: ChildProcess
  readonly #clock: Clock
  /** Ranges in an answer: at most every other page, of each of two mappings. */
  #limitBytes: number
  readonly #expected: Expected[] = []
  readonly #ending = Promise.withResolvers<DiapauseError>()
  #ready: Promise<unknown> = Promise.resolve()
  #over: DiapauseError | undefined
  #chunks: Uint8Array[] = []
  #held = 0

  /** Starts `binary` and resolves when it listens on `socketPath`. HYPERVISOR_TRACKING where it does not. */
  static async start(
    binary: string,
    options: { readonly socketPath: string; readonly pages: number; readonly clock: Clock }
  ): Promise<TrackerProcess> {
    // It dies with the thread that forks, see process.ts.
    if (!isMainThread) throw new TypeError('the tracker must be started by the main thread')
    const tracker = new TrackerProcess(binary, options)
    await tracker.#inTime(tracker.#expect(KIND.listening))
    tracker.#ready = handled(tracker.#expect(KIND.ready))
    return tracker
  }

  private constructor(
    binary: string,
    options: { readonly socketPath: string; readonly pages: number; readonly clock: Clock }
  ) {
    this.#clock = options.clock
    this.#limitBytes = limitOf(options.pages)
    this.ended = this.#ending.promise
    // Nothing of this process's environment, which may hold credentials; capabilities it gives up by itself.
    this.#child = spawn(binary, ['serve', options.socketPath], { stdio: 'pipe', env: {} })
    this.#child.on('error', error => this.#end(error.message, error))
    let said = ''
    this.#child.stderr?.setEncoding('latin1').on('data', (text: string) => {
      said = (said + text).slice(-ERROR_BYTES)
    })
    this.#child.stdout?.on('data', (chunk: Uint8Array) => this.#receive(chunk))
    this.#child.stdin?.on('error', error => this.#end(error.message, error))
    this.#child.on('exit', (status, signal) => this.#end(`it has ended (${signal ?? status}) ${said}`.trim()))
  }

  /**
   * Protects the mappings of a file in process `pid`, which has started: from now on `scan` knows what is written.
   * HYPERVISOR_TRACKING, from here as from `scan`: the helper is of no more use.
   */
  async arm(pid: number, file: { dev: bigint; ino: bigint; bytes: number }): Promise<void> {
    await this.#inTime(this.#ready)
    await this.#ask(`arm ${pid} ${file.dev} ${file.ino} ${file.bytes}\n`, KIND.armed)
  }

  /** What was written since the last scan, protected again. */
  async scan(): Promise<PageRanges> {
    const payload = await this.#ask('scan\n', KIND.ranges)
    if (payload.length % 8 !== 0) throw this.#end(`it answered ${payload.length} bytes of ranges`)
    return new Uint32Array(payload.buffer, payload.byteOffset, payload.length / 4)
  }

  kill(): void {
    this.#end('it was ended')
  }

  /** Resolves when it has ended. */
  async end(): Promise<void> {
    this.kill()
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, 'exit')
  }

  /** It is of no more use. */
  get isOver(): boolean {
    return this.#over !== undefined
  }

  /** Nobody needs it yet: it does not keep this process from ending. */
  wait(): void {
    this.#child.unref()
    for (const stream of this.#streams) stream.unref()
  }

  /** It has waited, and is for a VM with so many pages now. */
  begin(pages: number): void {
    this.#limitBytes = limitOf(pages)
    this.#child.ref()
    for (const stream of this.#streams) stream.ref()
  }

  /** Pipes are sockets here (node:child_process). */
  get #streams(): Socket[] {
    const { stdin, stdout, stderr } = this.#child
    return [stdin, stdout, stderr].flatMap(stream => (stream ? [stream as unknown as Socket] : []))
  }

  #ask(line: string, kind: number): Promise<Uint8Array> {
    if (!this.#over) this.#child.stdin?.write(line)
    return this.#inTime(this.#expect(kind))
  }

  #expect(kind: number): Promise<Uint8Array> {
    if (this.#over) return Promise.reject(this.#over)
    return new Promise((resolve, reject) => this.#expected.push({ kind, resolve, reject }))
  }

  async #inTime<T>(answer: Promise<T>): Promise<T> {
    const disarm = this.#clock.after(ANSWER_MS, () => this.#end(`it did not answer within ${ANSWER_MS} ms`))
    try {
      return await answer
    } finally {
      disarm()
    }
  }

  #receive(chunk: Uint8Array): void {
    this.#chunks.push(chunk)
    this.#held += chunk.length
    while (!this.#over && this.#held >= HEADER_BYTES) {
      const head = this.#joined(HEADER_BYTES)
      const header = new DataView(head.buffer, head.byteOffset, HEADER_BYTES)
      const length = header.getUint32(4, true)
      if (length > this.#limitBytes) return void this.#end(`it answered ${length} bytes`)
      if (this.#held < HEADER_BYTES + length) return
      const all = this.#joined(HEADER_BYTES + length)
      const payload = all.slice(HEADER_BYTES, HEADER_BYTES + length) // a copy: aligned, and the caller's own
      this.#chunks = [all.subarray(HEADER_BYTES + length)]
      this.#held -= HEADER_BYTES + length
      this.#answered(header.getUint32(0, true), payload)
    }
  }

  /** The first `count` bytes held, and maybe more, in one piece. */
  #joined(count: number): Uint8Array {
    const first = this.#chunks[0]
    if (first !== undefined && first.length >= count) return first
    const all = new Uint8Array(this.#held)
    let at = 0
    for (const chunk of this.#chunks) {
      all.set(chunk, at)
      at += chunk.length
    }
    this.#chunks = [all]
    return all
  }

  #answered(kind: number, payload: Uint8Array): void {
    if (kind === KIND.error) return void this.#end(new TextDecoder().decode(payload))
    const expected = this.#expected.shift()
    if (expected?.kind === kind) return expected.resolve(payload)
    const over = this.#end(`it answered ${kind}, which nobody had asked for`)
    expected?.reject(over)
  }

  #end(why: string, cause?: unknown): DiapauseError {
    if (this.#over) return this.#over
    const over = new DiapauseError('HYPERVISOR_TRACKING', `written pages of RAM cannot be tracked: ${why}`, { cause })
    this.#over = over
    this.#child.kill('SIGKILL')
    for (const expected of this.#expected.splice(0)) expected.reject(over)
    this.#ending.resolve(over)
    return over
  }
}
