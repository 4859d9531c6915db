/**
 * Reed-Solomon over whole symbols, by @ronomon/reed-solomon (C, on libuv's threads). Its rules, found by reading and
 * trying it, and kept here so that nobody else needs to know them:
 *
 * - It aborts the process on an empty Buffer: every length is checked before the call.
 * - Its parity is laid out in chunks that depend on the symbol size: a symbol is coded and decoded whole, never a slice.
 * - A call costs tens of microseconds whatever its size: callers run the codewords of a grid side by side.
 * - It is fast only where data and parity have the same address modulo 8; buffers from here do, and any multiple of 8
 *   within a fresh buffer does. Others are coded byte by byte, correctly and slowly.
 * - Parity row 0 is the XOR of the data. For k = 1 parity is a copy.
 */
import { createRequire } from 'node:module'
import { DiapauseError } from '../errors.ts'
import type { Codec, CodeShape } from '../ports.ts'
import { MAX_K, MAX_M, MAX_SYMBOL_BYTES, SYMBOL_ALIGN_BYTES } from './grid.ts'
import type { ReedSolomon } from './ronomon.d.ts'

// The package's main file is the addon itself, which `import` cannot load.
const reedSolomon = createRequire(import.meta.url)('@ronomon/reed-solomon') as ReedSolomon

/** A codec that keeps one context per (k, m). Errors: ERASURE_SHAPE, ERASURE_LENGTH, DECODE_IMPOSSIBLE. */
export function createCodec(): Codec {
  const contexts = new Map<number, Buffer>()

  function contextOf({ k, m }: CodeShape): Buffer {
    const key = k * 256 + m
    let context = contexts.get(key)
    if (context === undefined) {
      context = reedSolomon.create(k, m)
      contexts.set(key, context)
    }
    return context
  }

  function run(
    sources: number,
    targets: number,
    data: Uint8Array,
    parity: Uint8Array,
    shape: CodeShape
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (error?: Error): void => (error ? reject(error) : resolve())
      const [d, p] = [viewOf(data), viewOf(parity)]
      reedSolomon.encode(contextOf(shape), sources, targets, d, 0, d.length, p, 0, p.length, settle)
    })
  }

  return {
    async encode(data, parity, shape) {
      checkLengths(data, parity, shape)
      const dataBits = 2 ** shape.k - 1
      await run(dataBits, 2 ** (shape.k + shape.m) - 1 - dataBits, data, parity, shape)
    },

    async decode(data, parity, shape, present, dataOnly = false) {
      checkLengths(data, parity, shape)
      const n = shape.k + shape.m
      if (present.length !== n) {
        throw new DiapauseError('ERASURE_LENGTH', `present must have ${n} entries, and has ${present.length}`)
      }
      let sources = 0
      let have = 0
      for (const [i, here] of present.entries()) {
        // Decoding uses the first k sources only, and makes what is no source: so a lost parity symbol is left alone.
        if (!here && !(dataOnly && have >= shape.k)) continue
        sources += 2 ** i
        if (here) have++
      }
      if (have < shape.k) {
        throw new DiapauseError('DECODE_IMPOSSIBLE', `${have} symbols are left of which ${shape.k} are needed`, {
          details: { have, k: shape.k, m: shape.m }
        })
      }
      const targets = 2 ** n - 1 - sources
      const lostData = targets % 2 ** shape.k
      if (lostData > 0 || (targets > 0 && !dataOnly)) await run(sources, targets, data, parity, shape)
    }
  }
}

function checkLengths(data: Uint8Array, parity: Uint8Array, { k, m, symbolBytes }: CodeShape): void {
  const whole = Number.isInteger(k) && Number.isInteger(m) && Number.isInteger(symbolBytes)
  if (!whole || k < 1 || k > MAX_K || m < 1 || m > MAX_M) {
    throw new DiapauseError('ERASURE_SHAPE', `cannot code k = ${k}, m = ${m} (1 to ${MAX_K} and 1 to ${MAX_M})`)
  }
  if (symbolBytes < SYMBOL_ALIGN_BYTES || symbolBytes > MAX_SYMBOL_BYTES || symbolBytes % SYMBOL_ALIGN_BYTES !== 0) {
    throw new DiapauseError('ERASURE_SHAPE', `symbols of ${symbolBytes} bytes: not a multiple of 8 up to 1 MiB`)
  }
  if (data.length !== k * symbolBytes || parity.length !== m * symbolBytes) {
    throw new DiapauseError(
      'ERASURE_LENGTH',
      `data and parity must be ${k * symbolBytes} and ${m * symbolBytes} bytes, and are ${data.length} and ${parity.length}`
    )
  }
}

const viewOf = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
