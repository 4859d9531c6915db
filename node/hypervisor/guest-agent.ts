/**
 * The channel to the agent in a guest. QEMU connects it as it starts, so that the guest never finds its end closed, which its
 * agent would take for a reason to look again every 100 ms. It is read only while somebody waits for an answer: a guest that
 * talks without end fills a buffer and no more.
 */
import type { Socket } from 'node:net'
import { DiapauseError, hasCode } from '../errors.ts'
import type { Clock, GuestAgent } from '../ports.ts'
import { type AgentLine, AgentLines, isSynced, replyOf, request, syncRequest } from './guest-agent-protocol.ts'
import { isRecord } from './qmp-protocol.ts'
import { listenForQmp } from './qmp.ts'

/** How often a program in the guest is asked after. A guess: such programs take a second. */
const POLL_MS = 200
const NS_PER_MS = 1_000_000
/** A guest's clock that is as near to what it was set to has been set. A guess: answers take some of that. */
const SET_WITHIN_MS = 2_000

export class GuestChannel implements GuestAgent {
  readonly path: string
  readonly #clock: Clock
  #closeListener: (() => void) | undefined
  #socket: Socket | undefined
  #closed = false
  #lines = new AgentLines()
  #heard: ((line: AgentLine) => void) | undefined
  /** Its answers are to what was asked last. */
  #synced = false
  #lastId = 0
  #tail: Promise<unknown> = Promise.resolve()

  constructor(path: string, clock: Clock) {
    this.path = path
    this.#clock = clock
  }

  /** Before QEMU starts. */
  async listen(): Promise<void> {
    const { connection, close } = await listenForQmp(this.path)
    this.#closeListener = close
    connection.then(
      socket => this.#connected(socket),
      () => {}
    )
  }

  async setTime(nowMs: () => number, timeoutMs: number): Promise<void> {
    try {
      await this.#command('guest-set-time', () => ({ time: Math.round(nowMs()) * NS_PER_MS }), timeoutMs)
    } catch (error) {
      if (!hasCode(error, 'GUEST_AGENT_REFUSED')) throw error
      // It writes the time to CMOS, too, by a program that not every guest has (in Debian 12 util-linux-extra has hwclock).
      if (await this.#isSet(nowMs, timeoutMs)) return
      for (const digits of [3, 0]) {
        const exitCode = await this.#run(() => ['date', '-s', `@${(nowMs() / 1000).toFixed(digits)}`], timeoutMs)
        if (exitCode === 0 && (await this.#isSet(nowMs, timeoutMs))) return
      }
      throw error
    }
  }

  async #isSet(nowMs: () => number, timeoutMs: number): Promise<boolean> {
    const ns = await this.#command('guest-get-time', () => ({}), timeoutMs)
    return typeof ns === 'number' && Math.abs(ns / NS_PER_MS - nowMs()) <= SET_WITHIN_MS
  }

  run(words: readonly string[], timeoutMs: number): Promise<number> {
    return this.#run(() => words, timeoutMs)
  }

  async #run(words: () => readonly string[], timeoutMs: number): Promise<number> {
    let program: string | undefined
    const request = () => {
      const [path, ...arg] = words()
      program = path
      return { path, arg }
    }
    const started = await this.#command('guest-exec', request, timeoutMs)
    const pid = isRecord(started) ? started.pid : undefined
    for (const endMs = this.#clock.now() + timeoutMs; ; ) {
      const status = await this.#command('guest-exec-status', () => ({ pid }), timeoutMs)
      if (isRecord(status) && status.exited === true) {
        return typeof status.signal === 'number' ? -status.signal : Number(status.exitcode)
      }
      if (this.#clock.now() >= endMs) throw silent(`whether ${program} has ended`, timeoutMs)
      await new Promise<void>(resolve => this.#clock.after(POLL_MS, resolve))
    }
  }

  #command(name: string, args: () => Readonly<Record<string, unknown>>, timeoutMs: number): Promise<unknown> {
    const turn = this.#tail.then(async () => {
      if (!this.#synced) await this.#sync(name, timeoutMs)
      const line = await this.#ask(request(name, args()), () => true, { name, timeoutMs })
      return replyOf(line, name)
    })
    this.#tail = turn.catch(() => {})
    return turn
  }

  close(): void {
    this.#closed = true
    this.#closeListener?.()
    this.#socket?.destroy()
  }

  #connected(socket: Socket): void {
    if (this.#closed) return void socket.destroy()
    this.#socket = socket
    socket.on('error', () => {}) // told of by its close
    socket.on('data', (chunk: Buffer) => {
      for (const line of this.#lines.push(chunk)) this.#heard?.(line)
    })
    socket.pause()
  }

  async #sync(name: string, timeoutMs: number): Promise<void> {
    const id = ++this.#lastId
    await this.#ask(syncRequest(id), line => isSynced(line, id), { name, timeoutMs })
    this.#synced = true
  }

  /** Sends and waits for the line that it is answered with. GUEST_AGENT_SILENT, GUEST_AGENT_GONE. */
  async #ask(
    bytes: Buffer,
    isAnswer: (line: AgentLine) => boolean,
    { name, timeoutMs }: { readonly name: string; readonly timeoutMs: number }
  ): Promise<AgentLine> {
    const socket = this.#socket
    const gone = () => new DiapauseError('GUEST_AGENT_GONE', `The VM has ended; its agent did not answer ${name}`)
    if (socket === undefined || this.#closed || socket.destroyed) throw gone()
    const answer = Promise.withResolvers<AgentLine>()
    const ended = () => answer.reject(gone())
    const disarm = this.#clock.after(timeoutMs, () => {
      this.#synced = false // it may answer yet
      answer.reject(silent(name, timeoutMs))
    })
    socket.once('close', ended)
    this.#heard = line => {
      if (isAnswer(line)) answer.resolve(line)
    }
    socket.resume()
    socket.write(bytes)
    try {
      return await answer.promise
    } finally {
      disarm()
      socket.off('close', ended)
      this.#heard = undefined
      socket.pause()
    }
  }
}

const silent = (command: string, timeoutMs: number) =>
  new DiapauseError(
    'GUEST_AGENT_SILENT',
    `The guest agent did not say within ${timeoutMs} ms: ${command}. Is qemu-guest-agent installed and running in the guest?`,
    { details: { command, timeoutMs } }
  )
