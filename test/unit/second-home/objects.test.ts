import { createHash, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DiapauseError } from '../../../node/errors.ts'
import { decodeHeader, encodeEpoch, type EpochBody, openEpoch } from '../../../node/second-home/epoch-object.ts'
import { epochName, parseEpochName } from '../../../node/second-home/layout.ts'
import { decodeStream, encodeStream } from '../../../node/second-home/stream-object.ts'
import { recoveryPublic } from '../../../protocols/membership/recovery.ts'

const cluster = 'ab'.repeat(16)
const hash = 'cd'.repeat(32)
const secret = new Uint8Array(32).fill(3)

const about = {
  cluster: { id: cluster, name: 'forest' },
  group: 'shop',
  epoch: 12,
  generation: 3,
  copiedMs: 1_700_000_000_000,
  vms: ['till'],
  streams: [{ stream: 'shop/till/3/12', manifest: hash, object: hash, bytes: 9 }]
}
const body: EpochBody = {
  vms: [
    { id: 'till', memoryMiB: 64, mac: '52:54:00:00:00:01', kernel: '/k', initrd: '/i', append: 'secret=of-the-guest' }
  ],
  outputCommit: true,
  openFlow: false,
  retention: { keepLast: 3, hourly: 24, daily: 0, weekly: 0 },
  images: { till: new Uint8Array(randomBytes(50)) },
  keys: [
    { id: 0, key: new Uint8Array(32).fill(1) },
    { id: 4, key: new Uint8Array(32).fill(2), baseKey: new Uint8Array(32).fill(9) }
  ]
}
const sealing = { recoveryPart: recoveryPublic(secret), once: randomBytes(32) }

/** Whatever is altered in it, it is refused with this code. */
function expectRefused(bytes: Uint8Array, read: (bytes: Uint8Array) => unknown, seed: number): void {
  let random = seed
  for (let i = 0; i < 300; i++) {
    random = (random * 1_103_515_245 + 12_345) % 2 ** 31
    const at = random % bytes.length
    const altered = i % 3 === 0 ? bytes.slice(0, at) : bytes.slice()
    if (i % 3 !== 0) altered[at] = (altered[at] ?? 0) ^ (1 << (random % 8))
    expect(() => read(altered), `${i} at ${at}`).toThrow(expect.objectContaining({ code: 'HOME_INVALID' }))
  }
}

describe('an epoch in a second home', () => {
  it('opens with the recovery key', () => {
    const bytes = encodeEpoch(about, body, sealing)
    expect(openEpoch(bytes, secret)).toEqual({ header: decodeHeader(bytes), body })
  })

  it('says without a key whose it is and what it needs, and nothing of what is in it', () => {
    const bytes = encodeEpoch(about, body, sealing)
    expect(decodeHeader(bytes)).toMatchObject(about)
    const readable = Buffer.from(bytes).toString('latin1')
    expect(readable).toContain('"group":"shop"')
    for (const hidden of ['of-the-guest', '52:54:00', sealing.recoveryPart, Buffer.alloc(32, 2).toString('base64url')])
      expect(readable).not.toContain(hidden)
  })

  it('is not made where nobody could read it', () => {
    const [vm] = body.vms
    for (const [of, what] of [
      [about, { ...body, vms: body.vms.map(each => ({ ...each, append: 'x'.repeat(3_000) })) }],
      [about, { ...body, images: {} }],
      [about, { ...body, keys: [{ id: 0, key: new Uint8Array(31) }] }],
      [about, { ...body, vms: Array.from({ length: 65 }, () => vm as (typeof body.vms)[number]) }],
      [about, { ...body, images: { till: new Uint8Array(50 << 20) } }],
      [{ ...about, epoch: -1 }, body],
      [
        { ...about, streams: Array.from({ length: 10_001 }, () => about.streams[0] as (typeof about.streams)[number]) },
        body
      ]
    ] as const)
      expect(() => encodeEpoch(of, what, sealing)).toThrow(
        expect.objectContaining({
          code: 'HOME_UNREADABLE',
          message: expect.stringContaining('is not copied') as string
        })
      )
  })

  it('opens with no other key', () => {
    const bytes = encodeEpoch(about, body, sealing)
    const opening = () => openEpoch(bytes, new Uint8Array(32).fill(4))
    expect(opening).toThrow(expect.objectContaining({ code: 'RECOVERY_KEY_OTHER' }))
  })

  it('is refused where anything of it was altered', () => {
    expectRefused(encodeEpoch(about, body, sealing), bytes => openEpoch(bytes, secret), 1)
  })

  it('is refused where its header is that of another, although each is whole', () => {
    const other = encodeEpoch({ ...about, epoch: 13 }, body, sealing)
    const text = Buffer.from(encodeEpoch(about, body, sealing))
      .toString('latin1')
      .replace('"epoch":12', '"epoch":13')
    expect(text.length).toBe(other.length)
    const forged = Buffer.from(text, 'latin1')
    forged.set(createHash('sha256').update(forged.subarray(0, -32)).digest(), forged.length - 32)
    expect(() => openEpoch(forged, secret)).toThrow(/altered/)
  })
})

describe('a stream in a second home', () => {
  const streams = fc
    .record({
      chunkBytes: fc.integer({ min: 1, max: 64 << 20 }),
      chunks: fc.integer({ min: 0, max: 20 }),
      rest: fc.nat()
    })
    .map(({ chunkBytes, chunks, rest }) => ({
      stream: 'shop/till/1/2',
      dataBytes: chunks === 0 ? 0 : (chunks - 1) * chunkBytes + 1 + (rest % chunkBytes),
      key: 3,
      chunkBytes,
      chunks: Array.from({ length: chunks }, () => randomBytes(32).toString('hex'))
    }))

  it('is read as it was written, and has one name', () => {
    fc.assert(
      fc.property(streams, stream => {
        const { hash: name, bytes } = encodeStream(stream)
        expect(decodeStream(bytes)).toEqual(stream)
        expect(encodeStream(decodeStream(bytes)).hash).toBe(name)
      })
    )
  })

  it('is refused where anything of it was altered, or its chunks are not as many as it has', () => {
    const stream = { stream: 's', dataBytes: 10, key: 0, chunkBytes: 4, chunks: [hash, hash, hash] }
    expectRefused(encodeStream(stream).bytes, decodeStream, 2)
    for (const chunks of [
      [hash, hash],
      [hash, hash, hash, hash]
    ])
      expect(() => decodeStream(encodeStream({ ...stream, chunks }).bytes)).toThrow(DiapauseError)
  })

  it('is refused whatever else it is', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), bytes => {
        expect(() => decodeStream(bytes)).toThrow(expect.objectContaining({ code: 'HOME_INVALID' }))
        expect(() => decodeHeader(bytes)).toThrow(expect.objectContaining({ code: 'HOME_INVALID' }))
      })
    )
  })
})

describe('the name of an epoch', () => {
  it('says whose it is', () => {
    const of = { cluster, group: 'a.b-c_D', generation: 3, epoch: 17 }
    expect(parseEpochName(epochName(of))).toEqual(of)
  })

  it('sorts as epochs do', () => {
    const place = { cluster, group: 'g' }
    const names = [9, 10, 100, 99].map(epoch => epochName({ ...place, generation: 2, epoch }))
    names.push(epochName({ ...place, generation: 10, epoch: 1 })) // of a group that was made anew
    expect(names.sort().map(name => parseEpochName(name)?.epoch)).toEqual([9, 10, 99, 100, 1])
  })

  it('is no other text', () => {
    for (const other of ['', 'epochs/x/g/1', `epochs/${cluster}/../000000000000001`, `chunks/${cluster}/g/${hash}`])
      expect(parseEpochName(other)).toBeUndefined()
  })
})
