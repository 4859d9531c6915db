import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Outbox } from '../../protocols/outbox.ts'
import { frameHeader, frames } from '../../protocols/stream.ts'

/** The bytes cut at the given places, in groups as a socket might deliver them. */
async function* inPieces(bytes: Uint8Array, cuts: readonly number[]): AsyncGenerator<Uint8Array[]> {
  const places = [...new Set(cuts.map(cut => cut % (bytes.length + 1)))].sort((a, b) => a - b)
  let at = 0
  for (const place of [...places, bytes.length]) {
    yield [bytes.subarray(at, place)]
    at = place
  }
}

async function collect(source: AsyncIterable<Uint8Array>): Promise<number[][]> {
  const list: number[][] = []
  for await (const message of source) list.push([...message])
  return list
}

const onWire = (messages: readonly Uint8Array[]): Uint8Array =>
  Buffer.concat(messages.flatMap(message => [frameHeader(message.length), message]))

test('messages survive any cutting of the bytes', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 12 }),
      fc.array(fc.nat(), { maxLength: 30 }),
      async (messages, cuts) => {
        expect(await collect(frames(inPieces(onWire(messages), cuts), 50))).toEqual(
          messages.map(message => [...message])
        )
      }
    )
  )
})

test('a length over the limit throws before anything is reserved for it', async () => {
  const hostile = Buffer.from([0xff, 0xff, 0xff, 0xff, 1])
  await expect(collect(frames(inPieces(hostile, [1, 3]), 1_000))).rejects.toMatchObject({ code: 'FRAME_OVERSIZE' })
})

test('bytes that end inside a message throw, bytes that end between two do not', async () => {
  const two = onWire([Buffer.from('one'), Buffer.from('two')])
  await expect(collect(frames(inPieces(two.subarray(0, -1), [2]), 10))).rejects.toMatchObject({
    code: 'FRAME_TRUNCATED'
  })
  await expect(collect(frames(inPieces(two.subarray(0, 9), []), 10))).rejects.toMatchObject({ code: 'FRAME_TRUNCATED' })
  expect(await collect(frames(inPieces(two.subarray(0, 7), []), 10))).toHaveLength(1)
})

test('random bytes never yield a message over the limit', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), fc.array(fc.nat(), { maxLength: 9 }), async (bytes, cuts) => {
      const list = await collect(frames(inPieces(bytes, cuts), 64)).catch(() => [])
      for (const message of list) expect(message.length).toBeLessThanOrEqual(64)
    })
  )
})

test('an outbox gives out exactly the bytes of its messages, in order, whatever it is asked for', () => {
  fc.assert(
    fc.property(
      fc.array(fc.array(fc.uint8Array({ maxLength: 40 }), { minLength: 1, maxLength: 4 }), { maxLength: 30 }),
      fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1, maxLength: 30 }),
      (messages, sizes) => {
        const box = new Outbox(1 << 20)
        const wanted = onWire(messages.map(parts => Buffer.concat(parts)))
        const got: Uint8Array[] = []
        let turn = 0
        for (const parts of messages) {
          box.push(
            parts,
            parts.reduce((sum, part) => sum + part.length, 0)
          )
          if (turn % 3 === 0) got.push(box.take(sizes[turn % sizes.length] as number))
          turn++
        }
        while (box.bytes > 0) got.push(box.take(sizes[turn++ % sizes.length] as number))
        expect(Buffer.compare(Buffer.concat(got), wanted)).toBe(0)
      }
    )
  )
})

test('a full outbox lets waiting messages in one after the other, and keeps later ones behind them', async () => {
  const box = new Outbox(10)
  const message = Buffer.alloc(6)
  await box.enqueue([message], 6)
  const done: number[] = []
  void box.enqueue([message], 6).then(() => done.push(1))
  const third = box.enqueue([message], 6).then(() => done.push(2))
  expect(box.full).toBe(true)
  expect(box.bytes).toBe(10)
  box.take(1)
  expect(box.full).toBe(true)
  await Promise.resolve()
  expect(done).toEqual([1])
  box.take(10)
  await third
  expect(done).toEqual([1, 2])
  const late = box.enqueue([message], 6)
  box.close(new Error('gone'))
  await expect(late).rejects.toThrow('gone')
})

test('an outbox asks about a message when its first byte is to leave, and takes it out where it may not', () => {
  const box = new Outbox(1 << 20)
  const asked: string[] = []
  let may = true
  const push = (text: string, guarded: boolean): void => {
    const leaves = (): boolean => {
      asked.push(text)
      return may
    }
    box.push([Buffer.from(text[0] as string), Buffer.from(text.slice(1))], text.length, guarded ? leaves : undefined)
  }
  push('first', true)
  push('second', true)
  push('third', false)
  push('fourth', true)
  const head = box.take(6)
  expect(asked).toEqual(['first'])
  may = false
  expect(
    Buffer.compare(Buffer.concat([head, box.take(100)]), onWire(['first', 'third'].map(text => Buffer.from(text))))
  ).toBe(0)
  expect(asked).toEqual(['first', 'second', 'fourth'])
  expect(box.bytes).toBe(0)
})
