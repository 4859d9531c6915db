import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DiapauseError } from '../../node/errors.ts'
import { packMessage } from '../../protocols/msgpack.ts'
import { Generations, parseStreamName } from '../../protocols/shards/generations.ts'
import {
  encodeMessage,
  MAX_CHECKED,
  MAX_PATHS,
  MAX_PAYLOAD_BYTES,
  packColumns,
  parseColumns,
  parseMessage,
  type ShardRequest
} from '../../protocols/shards/messages.ts'

const id = fc.nat()
const place = { stream: fc.stringMatching(/^[a-z0-9/]{1,100}$/), grid: fc.nat(), column: fc.nat({ max: 254 }) }
const hash = fc.stringMatching(/^[0-9a-f]{64}$/)
const range = fc.record({ offset: fc.nat(), length: fc.nat({ max: 65_536 }) })
const payload = fc.uint8Array({ maxLength: 100 })
const requests: fc.Arbitrary<ShardRequest> = fc.oneof(
  fc.record({ kind: fc.constant('put' as const), id, ...place, payload }),
  fc.record({
    kind: fc.constant('get' as const),
    id,
    ...place,
    ranges: fc.array(range, { minLength: 1, maxLength: 30 })
  }),
  fc.record({ kind: fc.constant('putManifest' as const), id, hash, payload }),
  fc.record({ kind: fc.constant('getManifest' as const), id, hash }),
  fc.record({ kind: fc.constant('have' as const), id, stream: place.stream }),
  fc.record({
    kind: fc.constant('check' as const),
    id,
    stream: place.stream,
    column: place.column,
    firstGrid: fc.nat(),
    grids: fc.nat({ max: MAX_CHECKED })
  }),
  fc.record({ kind: fc.constant('repair' as const), id }),
  fc.record({ kind: fc.constant('file' as const), id, hash, offset: fc.nat() }),
  fc.record({
    kind: fc.constant('paths' as const),
    id,
    paths: fc.array(fc.string({ minLength: 1, maxLength: 50 }), { maxLength: MAX_PATHS })
  })
)

/** A message with any header, well framed. */
function framed(header: unknown, body: Uint8Array = new Uint8Array(0), version = 1): Buffer {
  const bytes = Buffer.from(packMessage(header))
  return Buffer.concat([Buffer.from([version, bytes.length & 0xff, bytes.length >> 8]), bytes, body])
}

/** The code with which a message is refused, undefined where it is not. */
function refusal(bytes: Uint8Array): unknown {
  try {
    parseMessage(bytes)
    return undefined
  } catch (error) {
    return error instanceof DiapauseError ? error.code : error
  }
}

describe('a message about shards', () => {
  it('arrives as it was sent', () => {
    fc.assert(
      fc.property(requests, request => {
        const got = parseMessage(Buffer.concat(encodeMessage(request)))
        expect({ ...got, ...('payload' in got && { payload: Uint8Array.from(got.payload) }) }).toEqual(request)
      })
    )
    const ok = parseMessage(
      Buffer.concat(encodeMessage({ kind: 'ok', id: 7, payload: [Buffer.from('ab'), Buffer.from('c')] }))
    )
    expect(ok).toMatchObject({ kind: 'ok', id: 7, payload: Buffer.from('abc') })
    expect(parseMessage(Buffer.concat(encodeMessage({ kind: 'cancel', id: 7 })))).toEqual({ kind: 'cancel', id: 7 })
    const error = { kind: 'error', id: 7, code: 'SHARD_STALE', message: 'x'.repeat(9_000) } as const
    expect(parseMessage(Buffer.concat(encodeMessage(error)))).toEqual({ ...error, message: 'x'.repeat(500) })
  })

  it('carries its payload without a copy', () => {
    const bytes = randomBytes(1_000)
    const put = encodeMessage({ kind: 'put', id: 1, stream: 's', grid: 0, column: 0, payload: bytes })
    expect(put.at(-1)).toBe(bytes)
    const message = Buffer.concat(put)
    const got = parseMessage(message)
    expect('payload' in got && got.payload.buffer).toBe(message.buffer)
  })

  it('is refused when it is of another version, malformed, or beyond a limit', () => {
    const name = 'a'.repeat(64)
    const bad: unknown[] = [
      'text',
      5,
      null,
      {},
      [],
      [0],
      [99, 1],
      [-1, 1],
      [0.5, 1],
      [0, 1, 's', 0],
      [0, 1, 's', 0, 0, 0],
      [0, 1, '', 0, 0],
      [0, 1, 'x'.repeat(256), 0, 0],
      [0, 1, 's', -1, 0],
      [0, 1, 's', 2 ** 32, 0],
      [0, 1, 's', 0, 255],
      [0, '1', 's', 0, 0],
      [0, 1, 7, 0, 0],
      [1, 1, 's', 0, 0, []],
      [1, 1, 's', 0, 0, [1]],
      [1, 1, 's', 0, 0, 'x'],
      [1, 1, 's', 0, 0, [0, -1]],
      [1, 1, 's', 0, 0, new Array(62).fill(1)],
      [1, 1, 's', 0, 0, [0, MAX_PAYLOAD_BYTES, 0, 1]],
      [2, 1, name.slice(1)],
      [3, 1, name.toUpperCase()],
      [3, 1, name, 1],
      [4, 1, 's', 'x'],
      [5, 1, 1],
      [6, 1, 'CODE'],
      [7, 1],
      [7, 1, ''],
      [8, 1, 's', 255, 0, 1],
      [8, 1, 's', 0, 2 ** 32, 1],
      [8, 1, 's', 0, 0, MAX_CHECKED + 1],
      [8, 1, 's', 0, 0],
      [9, 1, 's'],
      [10, 1, 2],
      [11, 1]
    ]
    const taken = bad.filter(header => refusal(framed(header)) !== 'SHARD_MESSAGE')
    expect(taken).toEqual([])
    expect(() => parseMessage(framed([5, 1], new Uint8Array(0), 2))).toThrow(/update the older peer/)
    expect(() => parseMessage(framed([5, 1], new Uint8Array(MAX_PAYLOAD_BYTES + 1)))).toThrow(/payload/)
    expect(parseMessage(framed([5, 1]))).toMatchObject({ kind: 'ok', id: 1 })
  })

  it('of what a peer has is read back, and is refused when it is anything else', () => {
    const columns = [
      { column: 0, grids: 1 },
      { column: 254, grids: 2 ** 32 }
    ]
    expect(parseColumns(packColumns([...columns, { column: 255, grids: 1 }]))).toEqual(columns)
    const bad: unknown[] = [null, {}, 'text', [1], [255, 1], [0, -1], [0, [1]], new Array(512).fill(0)]
    for (const value of bad) {
      expect(() => parseColumns(packMessage(value))).toThrow(expect.objectContaining({ code: 'SHARD_MESSAGE' }))
    }
    expect(() => parseColumns(new Uint8Array(0))).toThrow(expect.objectContaining({ code: 'SHARD_MESSAGE' }))
  })

  it('may be any bytes: it is a message or SHARD_MESSAGE, nothing else', () => {
    const whole = requests.map(request => Buffer.concat(encodeMessage(request)))
    const damaged = fc.tuple(whole, fc.nat(), fc.nat({ max: 255 }), fc.nat()).map(([bytes, at, value, cut]) => {
      bytes[at % bytes.length] = value
      return bytes.subarray(0, cut % 3 === 0 ? cut % (bytes.length + 1) : bytes.length)
    })
    const noise = fc
      .uint8Array({ maxLength: 200 })
      .map(bytes => Buffer.concat([Buffer.from([1, bytes.length & 63, 0]), bytes]))
    fc.assert(
      fc.property(fc.oneof(damaged, noise, fc.uint8Array({ maxLength: 50 })), bytes => {
        expect([undefined, 'SHARD_MESSAGE']).toContain(refusal(bytes))
      }),
      { numRuns: 3_000 }
    )
  })
})

describe('generations', () => {
  it('are read from a stream name, and nothing else is one', () => {
    expect(parseStreamName('bank/vm-1/3/12')).toEqual({ group: 'bank', vm: 'vm-1', generation: 3, epoch: 12 })
    for (const bad of [
      '',
      'a/b/c/d',
      'a/b/1',
      'a/b/1/2/3',
      'a//1/2',
      'a/b/-1/2',
      'a/b/1/2\n',
      `a/b/${'9'.repeat(16)}/1`
    ]) {
      expect(parseStreamName(bad)).toBeUndefined()
    }
  })

  it('of a VM that may write are those of its record and newer ones; what is put makes no older one of them', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.constantFrom('v', 'w'), fc.nat({ max: 9 }), fc.boolean())), steps => {
        const generations = new Generations()
        const records = new Map<string, number>()
        for (const [vm, generation, isRecord] of steps) {
          if (isRecord) {
            generations.observe('g', vm, generation)
            records.set(vm, generation)
          } else {
            const admitted = generations.admits({ group: 'g', vm, generation, epoch: 1 })
            expect(admitted).toBe(generation >= (records.get(vm) ?? 0))
          }
        }
      })
    )
  })
})
