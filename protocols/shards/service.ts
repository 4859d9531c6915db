/**
 * The shard protocol over the channel 'bulk': serves this peer's store to the others, and asks others for theirs. It
 * knows no code and no grids: columns are bytes, and who holds what is the caller's matter (`node/shards/`).
 *
 * Why the reader of the channel is never held back: requests and answers share one stream a direction. If two peers both
 * stopped reading because they serve too much, each waiting to write an answer that the other does not read, they would
 * wait for ever. So reading goes on always and memory is bounded otherwise: an asker has at most so much under way to a peer
 * (`asking.ts`; its callers wait in a `Lane`: that is the back-pressure), and a peer serves at most so many of one asker
 * (`serving.ts`), which a well-behaved one never reaches; what is beyond is answered SHARD_BUSY.
 */
import { hash } from 'node:crypto'
import { DiapauseError, hasCode, messageOf } from '../../node/errors.ts'
import type { Clock, ColumnState, Log, ShardStore, StreamId, Transport } from '../../node/ports.ts'
import type { PeerId } from '../core.ts'
import { sparingly } from '../sparingly.ts'
import { type Lot, PLACES, timeoutMsOf, Unanswered } from './asking.ts'
import { fileAnswer, type ServedFiles } from './boot-files.ts'
import { Generations, parseStreamName } from './generations.ts'
import { Lane, reasonOf } from './lane.ts'
import {
  CHECKED,
  encodeMessage,
  type HeldColumn,
  MAX_CHECKED,
  MAX_PAYLOAD_BYTES,
  type OutgoingOk,
  packColumns,
  parseColumns,
  parseMessage,
  type Range,
  type ShardAnswer,
  type ShardMessage,
  type ShardRequest
} from './messages.ts'
import { type Served, Serving } from './serving.ts'

export interface ShardServiceOptions {
  readonly transport: Transport
  /** Undefined at a witness: it stores nothing and says so. */
  readonly store: ShardStore | undefined
  readonly clock: Clock
  readonly log: Log
  readonly requestTimeoutMs?: number
  /** Checks a column of a grid in this peer's store. Absent, or undefined: as the store does. */
  readonly verify?: (stream: StreamId, grid: number, column: number) => Promise<ColumnState> | undefined
  /** A column of this peer's store was found damaged when another peer had it checked. */
  readonly onDamaged?: (stream: StreamId, column: number) => void
  /** Another peer asks this one to look at once for what it should rebuild. */
  readonly onRepair?: () => void
  /** What VMs of this peer boot from. Absent: nothing of it is told. */
  readonly files?: ServedFiles | undefined
}

export interface ShardServiceStats {
  readonly served: number
  readonly refusedStale: number
  readonly refusedBusy: number
  readonly malformed: number
  /** Reads of others that were dropped, as nobody waited for them any more. */
  readonly cancelled: number
}

interface Pending {
  readonly peer: PeerId
  settle(answer: ShardAnswer | DiapauseError): void
}

export class ShardService {
  readonly #options: ShardServiceOptions
  readonly #self: PeerId
  readonly #generations = new Generations()
  readonly #pending = new Map<number, Pending>()
  readonly #lanes = new Map<string, Lane>()
  readonly #serving = new Serving()
  readonly #unanswered = new Unanswered()
  readonly #stats = { served: 0, refusedStale: 0, refusedBusy: 0, malformed: 0, cancelled: 0 }
  /** Each says why; a member may send ever more such messages. */
  readonly #tellMalformed: (about: object) => void
  readonly #tellCorrupt: (about: object) => void
  /** Apart from those: it is a mistake of this program, and damage that is asked for again and again must not hide it. */
  readonly #tellFailed: (about: object) => void
  #lastId = 0

  /** Takes the channel 'bulk' of the transport; make it before `transport.start`. */
  constructor(options: ShardServiceOptions) {
    const { transport, log } = options
    this.#options = options
    this.#self = transport.self
    this.#tellMalformed = sparingly<object>((about, count) =>
      log.warn({ ...about, count }, 'a message about shards was refused')
    )
    const failed = (is: object, count: number): void => log.error({ ...is, count }, 'a request about shards failed')
    this.#tellCorrupt = sparingly(failed)
    this.#tellFailed = sparingly(failed)
    transport.handle('bulk', (from, message) => this.#receive(from, message))
    transport.onConnection((peer, connected) => {
      if (!connected) this.#fail(peer)
    })
  }

  stats(): ShardServiceStats {
    return { ...this.#stats }
  }

  /** Of the VM's record: puts of an older generation are refused from now on. */
  observeGeneration(group: string, vm: string, generation: number): void {
    this.#generations.observe(group, vm, generation)
  }

  /**
   * Durable at `peer` (which may be this one) when it resolves. SHARD_UNREACHABLE, or what the peer says: SHARD_STALE,
   * SHARD_CONFLICT, STORE_FULL. `payload` must not change until then.
   */
  async put(peer: PeerId, stream: StreamId, grid: number, column: number, payload: Uint8Array): Promise<void> {
    await this.#ask(peer, 'write', id => ({ kind: 'put', id, stream, grid, column, payload }))
  }

  /**
   * The ranges of one column, end to end. SHARD_UNREACHABLE, SHARD_MISSING, SHARD_CORRUPT; the reason of `signal` as soon as that
   * aborts, and then the peer does not answer it where it has not yet.
   */
  get(
    peer: PeerId,
    stream: StreamId,
    grid: number,
    column: number,
    ranges: readonly Range[],
    signal?: AbortSignal
  ): Promise<Uint8Array> {
    return this.#ask(peer, 'read', id => ({ kind: 'get', id, stream, grid, column, ranges }), signal)
  }

  async putManifest(peer: PeerId, hash: string, payload: Uint8Array): Promise<void> {
    await this.#ask(peer, 'write', id => ({ kind: 'putManifest', id, hash, payload }))
  }

  /** Bytes whose hash was checked. MANIFEST_MISSING, MANIFEST_HASH, SHARD_UNREACHABLE. */
  async getManifest(peer: PeerId, name: string): Promise<Uint8Array> {
    const bytes = await this.#ask(peer, 'read', id => ({ kind: 'getManifest', id, hash: name }))
    if (hash('sha256', bytes) === name) return bytes
    throw new DiapauseError('MANIFEST_HASH', `${peer} answered with other bytes than manifest ${name}`)
  }

  /** The columns that `peer` has of a stream. SHARD_UNREACHABLE also where it is of a version that does not know the question. */
  async have(peer: PeerId, stream: StreamId): Promise<readonly HeldColumn[]> {
    return parseColumns(await this.#ask(peer, 'have', id => ({ kind: 'have', id, stream })))
  }

  /** Lets `peer` read and check its column `column` of grids [firstGrid, firstGrid + grids), at most MAX_CHECKED. */
  async check(
    peer: PeerId,
    stream: StreamId,
    column: number,
    firstGrid: number,
    grids: number
  ): Promise<readonly ColumnState[]> {
    const answer = await this.#ask(peer, 'check', id => ({ kind: 'check', id, stream, column, firstGrid, grids }))
    const states = [...answer].map(byte => CHECKED[byte])
    if (states.length === grids && states.every(state => state !== undefined)) return states
    throw new DiapauseError('SHARD_MESSAGE', `${peer} answered for ${answer.length} grids instead of ${grids}`)
  }

  /** Lets `peer` look at once for columns that it should rebuild. */
  async repair(peer: PeerId): Promise<void> {
    await this.#ask(peer, 'write', id => ({ kind: 'repair', id }))
  }

  /** Some bytes of a file that `peer` keeps, from `offset`; none at its end. FILE_MISSING, SHARD_UNREACHABLE. */
  file(peer: PeerId, name: string, offset: number): Promise<Uint8Array> {
    return this.#ask(peer, 'file', id => ({ kind: 'file', id, hash: name, offset }))
  }

  /** A byte for each of at most MAX_PATHS paths, as the table of messages has it. SHARD_UNREACHABLE. */
  paths(peer: PeerId, paths: readonly string[]): Promise<Uint8Array> {
    return this.#ask(peer, 'file', id => ({ kind: 'paths', id, paths }))
  }

  // -------------------------------------------------------------------------------------------- asking

  async #ask(peer: PeerId, lot: Lot, make: (id: number) => ShardRequest, signal?: AbortSignal): Promise<Uint8Array> {
    const id = ++this.#lastId
    const request = make(id)
    if ('payload' in request && request.payload.length > MAX_PAYLOAD_BYTES) {
      const facts = `${request.payload.length} bytes do not fit a message of ${MAX_PAYLOAD_BYTES}`
      throw new DiapauseError('SHARD_INVALID', `${facts}; take smaller symbols`)
    }
    if (peer === this.#self) return joined(await this.#perform(request))
    return await this.#lane(peer, lot).run(() => this.#exchange(peer, request, signal), signal)
  }

  async #exchange(peer: PeerId, request: ShardRequest, signal?: AbortSignal): Promise<Uint8Array> {
    const { transport, clock } = this.#options
    signal?.throwIfAborted()
    if (!transport.connected(peer)) throw unreachable(peer, 'it is not connected')
    if (this.#unanswered.covers(peer, request.kind, clock.now()))
      throw unreachable(peer, 'it leaves such questions open')
    const timeoutMs = timeoutMsOf(request.kind, this.#options.requestTimeoutMs)
    const answer = await new Promise<ShardAnswer | DiapauseError>((resolve, reject) => {
      const settle = (outcome: ShardAnswer | DiapauseError): void => {
        this.#pending.delete(request.id)
        cancelTimer()
        signal?.removeEventListener('abort', abort)
        resolve(outcome)
      }
      const abort = (): void => {
        transport.send(peer, 'bulk', encodeMessage({ kind: 'cancel', id: request.id }))
        reject(reasonOf(signal))
        settle(unreachable(peer, 'nobody waits for it'))
      }
      const late = (): void => {
        this.#unanswered.note(peer, request, clock.now())
        settle(unreachable(peer, `no answer in ${timeoutMs} ms`))
      }
      const cancelTimer = clock.after(timeoutMs, late)
      this.#pending.set(request.id, { peer, settle })
      signal?.addEventListener('abort', abort)
      transport
        .write(peer, 'bulk', encodeMessage(request))
        .catch(cause => settle(unreachable(peer, messageOf(cause), cause)))
    })
    if (answer instanceof DiapauseError) throw answer
    this.#unanswered.answered(peer, request.kind)
    if (answer.kind === 'ok') return answer.payload
    const code = /^[A-Z][A-Z_]*$/.test(answer.code) ? answer.code : 'SHARD_REFUSED'
    throw new DiapauseError(code, answer.message, { details: { peer } })
  }

  #fail(peer: PeerId): void {
    this.#unanswered.forget(peer)
    for (const pending of this.#pending.values()) {
      if (pending.peer === peer) pending.settle(unreachable(peer, 'the connection broke'))
    }
  }

  #lane(peer: PeerId, lot: Lot): Lane {
    const key = `${lot} ${peer}`
    let lane = this.#lanes.get(key)
    if (lane === undefined) {
      lane = new Lane(PLACES[lot])
      this.#lanes.set(key, lane)
    }
    return lane
  }

  // -------------------------------------------------------------------------------------------- serving

  #receive(from: PeerId, bytes: Uint8Array): void {
    let message: ShardMessage
    try {
      message = parseMessage(bytes)
    } catch (error) {
      this.#stats.malformed++
      this.#tellMalformed({ from, error: messageOf(error) })
      return
    }
    if (message.kind === 'ok' || message.kind === 'error') {
      const pending = this.#pending.get(message.id)
      if (pending?.peer === from) pending.settle(message)
      else this.#unanswered.late(from, message.id)
    } else if (message.kind === 'cancel') {
      this.#serving.cancel(from, message.id)
    } else {
      void this.#serve(from, message)
    }
  }

  async #serve(from: PeerId, request: ShardRequest): Promise<void> {
    const served = this.#serving.begin(from, request.id, bytesOf(request))
    if (served === undefined) {
      this.#stats.refusedBusy++
      const busy = { kind: 'error', id: request.id, code: 'SHARD_BUSY', message: 'too many requests at once' } as const
      this.#options.transport.send(from, 'bulk', encodeMessage(busy))
      return
    }
    try {
      const reply = (): Promise<void> => this.#reply(from, request, served)
      await (request.kind === 'get' ? served.inTurn(reply) : reply())
    } catch (error) {
      // The asker is gone; whoever needs the answer asks again.
      this.#options.log.debug({ from, error: messageOf(error) }, 'an answer about shards found no way')
    } finally {
      served.end()
    }
  }

  /** Unless the asker waits no more. */
  async #reply(from: PeerId, request: ShardRequest, served: Served): Promise<void> {
    const answer = served.cancelled ? undefined : await this.#answer(request)
    if (answer === undefined || served.cancelled) {
      this.#stats.cancelled++
      return
    }
    await this.#options.transport.write(from, 'bulk', encodeMessage(answer))
    this.#stats.served++
  }

  async #answer(request: ShardRequest): Promise<OutgoingOk | Exclude<ShardAnswer, { kind: 'ok' }>> {
    const { id } = request
    try {
      return { kind: 'ok', id, payload: await this.#perform(request) }
    } catch (error) {
      const code = error instanceof DiapauseError ? error.code : 'SHARD_REFUSED'
      const about = { kind: request.kind, error: messageOf(error) }
      if (hasCode(error, 'SHARD_CORRUPT')) this.#tellCorrupt(about)
      else if (!(error instanceof DiapauseError)) this.#tellFailed(about)
      return { kind: 'error', id, code, message: messageOf(error) }
    }
  }

  async #perform(request: ShardRequest): Promise<readonly Uint8Array[]> {
    const { store } = this.#options
    if (store === undefined) throw new DiapauseError('SHARD_REFUSED', 'this peer is a witness and stores no shards')
    switch (request.kind) {
      case 'put':
        if (!this.#generations.admits(nameOf(request.stream))) throw this.#stale(request.stream)
        await store.putColumn(request.stream, request.grid, request.column, request.payload)
        return []
      case 'get': {
        const { stream, grid, column, ranges } = request
        return await Promise.all(
          ranges.map(({ offset, length }) => store.readColumn(stream, grid, column, offset, length))
        )
      }
      case 'putManifest':
        await store.putManifest(request.hash, request.payload)
        return []
      case 'getManifest': {
        const bytes = await store.getManifest(request.hash)
        if (bytes === undefined) throw new DiapauseError('MANIFEST_MISSING', `manifest ${request.hash} is not here`)
        return [bytes]
      }
      case 'have':
        return [packColumns(await store.columns(request.stream))]
      case 'check': {
        const { stream, column, firstGrid, grids } = request
        const states: number[] = []
        for (let grid = firstGrid; grid < firstGrid + Math.min(grids, MAX_CHECKED); grid++) {
          const checking = this.#options.verify?.(stream, grid, column)
          const state = await (checking ?? store.verifyColumn(stream, grid, column))
          states.push(CHECKED.indexOf(state))
          if (state === 'damaged') this.#options.onDamaged?.(stream, column)
        }
        return [Uint8Array.from(states)]
      }
      case 'repair':
        this.#options.onRepair?.()
        return []
      case 'file':
      case 'paths':
        return [await fileAnswer(this.#options.files, request)]
    }
  }

  #stale(stream: StreamId): DiapauseError {
    this.#stats.refusedStale++
    return new DiapauseError(
      'SHARD_STALE',
      `a newer generation of the VM is known than that of ${stream}; stop writing it`
    )
  }
}

function nameOf(stream: StreamId): NonNullable<ReturnType<typeof parseStreamName>> {
  const name = parseStreamName(stream)
  if (name === undefined) throw new DiapauseError('SHARD_INVALID', `"${stream}" is not GROUP/VM/GENERATION/EPOCH`)
  return name
}

/** What serving it keeps in memory. */
function bytesOf(request: ShardRequest): number {
  if (request.kind === 'get') return request.ranges.reduce((sum, { length }) => sum + length, 0)
  return 'payload' in request ? request.payload.length : 0
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts)
}

function unreachable(peer: PeerId, why: string, cause?: unknown): DiapauseError {
  return new DiapauseError('SHARD_UNREACHABLE', `shards at ${peer} cannot be reached: ${why}`, {
    cause,
    details: { peer }
  })
}
