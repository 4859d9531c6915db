import { LengthPrefixedDecoder } from '@libp2p/utils'
import fc from 'fast-check'
import { Uint8ArrayList } from 'uint8arraylist'
import { describe, expect, it } from 'vitest'
import type { Stream } from '../../protocols/stream.ts'
import { cutQuietly, grantLazily, writeWhole } from '../../protocols/transport-lean.ts'

const ESTABLISHED = 3
const SYN_RECEIVED = 2

describe('the window of a stream', () => {
  const windowOf = (recvWindowCapacity: number, state = ESTABLISHED) => {
    let grants = 0
    const stream = { state, recvWindow: 100, recvWindowCapacity, sendWindowUpdate: () => void grants++ }
    grantLazily(stream as unknown as Stream)
    stream.sendWindowUpdate()
    return grants
  }

  it('is granted anew when half of it is used, and not before', () => {
    expect([100, 99, 51, 50, 1, 0].map(left => windowOf(left))).toEqual([0, 0, 0, 1, 1, 1])
  })

  it('is left to yamux while the stream is not yet acknowledged', () => {
    expect(windowOf(99, SYN_RECEIVED)).toBe(1)
  })

  it('is left alone in a stream that is not of yamux', () => {
    const stream = { send: () => true }
    grantLazily(stream as unknown as Stream)
    expect(Object.keys(stream)).toEqual(['send'])
  })
})

describe('what a connection is given at once', () => {
  const listOf = (...pieces: Uint8Array[]) => ({
    byteLength: pieces.reduce((sum, { length }) => sum + length, 0),
    subarray: () => new Uint8Array(Buffer.concat(pieces)),
    [Symbol.iterator]: () => pieces[Symbol.iterator]()
  })

  const connectionOf = (isFull = false) => {
    const calls: string[] = []
    const socket = {
      write: (bytes: Uint8Array) => {
        calls.push(`write ${bytes.join(' ').slice(0, 7)}`)
        return !isFull
      },
      cork: () => void calls.push('cork'),
      uncork: () => void calls.push('uncork'),
      writableNeedDrain: isFull
    }
    const sendData: (data: ReturnType<typeof listOf>) => object = () => ({})
    const connection = { socket, sendData }
    writeWhole(connection)
    return { calls, connection }
  }

  it('is one write where it is small', () => {
    const { calls, connection } = connectionOf()
    const sent = connection.sendData(listOf(Uint8Array.of(1, 2), Uint8Array.of(3), Uint8Array.of(4)))
    expect(sent).toEqual({ sentBytes: 4, canSendMore: true })
    expect(calls).toEqual(['write 1 2 3 4'])
  })

  it('is written piece by piece, in one call of the kernel, where it is large', () => {
    const { calls, connection } = connectionOf()
    const sent = connection.sendData(listOf(Uint8Array.of(7, 7), new Uint8Array(60_000)))
    expect(sent).toEqual({ sentBytes: 60_002, canSendMore: true })
    expect(calls).toEqual(['cork', 'write 7 7', 'write 0 0 0 0', 'uncork'])
  })

  it('asks to wait where the socket is full', () => {
    for (const length of [10, 60_000]) {
      expect(connectionOf(true).connection.sendData(listOf(new Uint8Array(length)))).toMatchObject({
        canSendMore: false
      })
    }
  })
})

describe('the records of Noise', () => {
  it('are cut out of what comes, wherever that was cut', () => {
    const lengthOf = (length: number) => Uint8Array.of(length >> 8, length & 255)
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 700 }), { maxLength: 6 }),
        fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 20 }),
        (records, cuts) => {
          const connection = { decoder: new LengthPrefixedDecoder() }
          cutQuietly(connection, {})
          const bytes = Buffer.concat(records.flatMap(record => [lengthOf(record.length), record]))
          const found: string[] = []
          for (let at = 0, turn = 0; at < bytes.length; turn++) {
            const end = at + (cuts[turn % cuts.length] as number)
            for (const record of connection.decoder.decode(new Uint8ArrayList(bytes.subarray(at, end)))) {
              found.push(Buffer.from(record.subarray()).toString('hex'))
            }
            at = end
          }
          expect(found).toEqual(records.map(record => Buffer.from(record).toString('hex')))
        }
      ),
      { numRuns: 100 }
    )
  })

  it('are cut without a throw', () => {
    const decoder = new LengthPrefixedDecoder({
      lengthDecoder: () => {
        throw new RangeError('asked for a length that is not there')
      }
    })
    cutQuietly({ decoder }, {})
    expect([...decoder.decode(new Uint8ArrayList(Uint8Array.of(0, 1, 9, 0)))]).toHaveLength(1)
  })
})
