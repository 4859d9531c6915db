/** A whole grid of data to the columns that are shipped and the hashes that the manifest keeps. */
import { hash } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { DiapauseError } from '../errors.ts'
import type { Codec } from '../ports.ts'
import {
  columnBytes,
  diagonalMembers,
  type GridShape,
  gridDataBytes,
  gridHashBytes,
  SYMBOL_HASH_BYTES,
  symbolHashOffset,
  symbolOffsetInColumn
} from './grid.ts'
import { GridEncoder } from './grid-encoder.ts'
import { GridMemory, gridParityBytes } from './grid-memory.ts'

/** What the peers store of one grid (`columns[c]` goes to holder c) and what the manifest keeps (GridManifest.hashes). */
export interface EncodedGrid {
  readonly columns: readonly Uint8Array[]
  readonly hashes: Uint8Array
}

/**
 * Bytes that are hashed, or joined to columns, in one turn of the event loop: about 1.2 ms of hashing (1.8 GB/s, measured), so
 * that a thread that codes still answers. `npm run bench -- code` holds what that comes to.
 */
const TURN_BYTES = 2 << 20
/** Parity is written here and copied to its columns: memory that was used before needs no page faults. Of each codec. */
const scratch = new WeakMap<Codec, Uint8Array[]>()
/** As many as grids are under way at once in one thread (`image/stream-writer.ts`), and not more. A guess. */
const MAX_SCRATCH = 4

/**
 * Codes up to a grid of data; what is missing to a full grid counts as zeros. `data` is read until the promise settles;
 * the columns are fresh memory, each of its own, so that they can be moved to another thread. ERASURE_LENGTH.
 *
 * The codewords run side by side on libuv's threads. SHA-256 of the symbols and the joining of columns run here, in turns of
 * `TURN_BYTES`: they take most of the time, the hashing alone three quarters. WebCrypto's digest, which has threads, was
 * tried and is no way out: it copies first, and that costs this thread 74 % (64 KiB) to 93 % (1 MiB) of what hashing costs.
 */
export async function encodeGrid(codec: Codec, shape: GridShape, data: Uint8Array): Promise<EncodedGrid> {
  const parity = takeScratch(codec, gridParityBytes(shape))
  const memory = new GridMemory(shape, padded(data, gridDataBytes(shape)), parity)
  const columns = new Array<Uint8Array>(shape.columns)
  const hashes = Buffer.allocUnsafeSlow(gridHashBytes(shape))
  const turns = new Turns()
  const encoder = new GridEncoder(codec, memory, {
    diagonal(diagonal) {
      for (const place of diagonalMembers(shape, diagonal)) {
        turns.add(shape.symbolBytes, () => {
          hashes.set(symbolHash(memory.symbol(place)), symbolHashOffset(shape, place))
        })
      }
    },
    column(column, symbols) {
      const whole = Buffer.allocUnsafeSlow(columnBytes(shape))
      columns[column] = whole
      for (const [row, symbol] of symbols.entries()) {
        turns.add(symbol.length, () => whole.set(symbol, symbolOffsetInColumn(shape, row)))
      }
    }
  })
  encoder.advance(memory.data.length)
  await encoder.end()
  await turns.done()
  keepScratch(codec, parity)
  return { columns, hashes }
}

/** Work in order, at once where little was done in this turn of the event loop, and else in a later one. */
class Turns {
  readonly #waiting: { readonly bytes: number; readonly run: () => void }[] = []
  #bytes = 0
  #working = false
  #ended: Promise<void> = Promise.resolve()

  add(bytes: number, run: () => void): void {
    this.#waiting.push({ bytes, run })
    if (!this.#working) this.#ended = this.#work()
  }

  /** Nothing that was added waits any more. */
  done(): Promise<void> {
    return this.#ended
  }

  async #work(): Promise<void> {
    this.#working = true
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      if (this.#bytes > 0 && this.#bytes + next.bytes > TURN_BYTES) {
        await setImmediate()
        this.#bytes = 0
      }
      this.#bytes += next.bytes
      next.run()
    }
    this.#working = false
  }
}

function takeScratch(codec: Codec, bytes: number): Uint8Array {
  const kept = scratch.get(codec) ?? []
  const at = kept.findIndex(each => each.length === bytes)
  return kept.splice(at, at === -1 ? 0 : 1)[0] ?? Buffer.allocUnsafeSlow(bytes)
}

function keepScratch(codec: Codec, memory: Uint8Array): void {
  const kept = scratch.get(codec) ?? []
  scratch.set(codec, [...kept, memory].slice(-MAX_SCRATCH))
}

function padded(data: Uint8Array, bytes: number): Uint8Array {
  if (data.length === bytes) return data
  if (data.length > bytes) {
    throw new DiapauseError('ERASURE_LENGTH', `a grid takes ${bytes} bytes of data and was given ${data.length}`)
  }
  const full = Buffer.alloc(bytes)
  full.set(data)
  return full
}

/** First 16 bytes of SHA-256: enough against accident and, at 2^64 work for a collision, against a member's forgery. */
export function symbolHash(symbol: Uint8Array): Uint8Array {
  return hash('sha256', symbol, 'buffer').subarray(0, SYMBOL_HASH_BYTES)
}
