/** What lies in a bucket or a directory that somebody else owns, what its server answers, and keys that people type. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { decodeHeader, encodeEpoch, type EpochBody, openEpoch } from '../../node/second-home/epoch-object.ts'
import { epochName, parseEpochName } from '../../node/second-home/layout.ts'
import { parseHomeUrl } from '../../node/second-home/open.ts'
import { readListing } from '../../node/second-home/s3.ts'
import { decodeStream, encodeStream } from '../../node/second-home/stream-object.ts'
import type { Random } from '../../protocols/core.ts'
import { parseRecoveryKey, recoveryKeyText, recoveryPublic } from '../../protocols/membership/recovery.ts'
import { openUnder, sealUnder } from '../../protocols/membership/key-box.ts'
import { mutate } from './mutate.ts'
import { attempt, type Target } from './target.ts'

const SECRET = new Uint8Array(32).fill(5)
const HASH = 'cd'.repeat(32)
const CHECK_BYTES = 32

const epochSeeds = (): Uint8Array[] => {
  const about = { cluster: { id: 'ab'.repeat(16), name: 'forest' }, group: 'shop', epoch: 12, generation: 3 }
  const streams = [{ stream: 'shop/till/3/12', manifest: HASH, object: HASH, bytes: 9 }]
  const body: EpochBody = {
    vms: [{ id: 'till', memoryMiB: 64, mac: '52:54:00:00:00:01', kernel: '/k', initrd: '/i', append: 'a' }],
    outputCommit: false,
    openFlow: false,
    images: { till: new Uint8Array(100) },
    keys: [{ id: 0, key: new Uint8Array(32) }],
    files: [{ path: '/k', hash: HASH, bytes: 9, stream: HASH }]
  }
  const sealing = { recoveryPart: recoveryPublic(SECRET), once: new Uint8Array(32).fill(6) }
  return [encodeEpoch({ ...about, copiedMs: 1, vms: ['till'], streams }, body, sealing)]
}

const streamSeeds = (): Uint8Array[] =>
  [0, 1, 3].map(count => {
    const chunks = Array.from({ length: count }, () => HASH)
    return encodeStream({ stream: 'shop/till/3/12', dataBytes: count * 4096, key: 1, chunkBytes: 4096, chunks }).bytes
  })

/** Mutated before its checksum, which is then right: else nothing behind that would be seen. */
function mutateChecked(input: Uint8Array, random: Random, seeds: readonly Uint8Array[]): Uint8Array {
  const bytes = mutate(input.subarray(0, -CHECK_BYTES), random, seeds)
  return new Uint8Array(Buffer.concat([bytes, createHash('sha256').update(bytes).digest()]))
}

const LISTING = `<?xml version="1.0"?><ListBucketResult><IsTruncated>true</IsTruncated>
<Contents><Key>a/b&amp;c</Key><LastModified>2026-11-22T00:00:00.000Z</LastModified><Size>17</Size></Contents>
<Contents><Key>a/d</Key><LastModified>2026-11-22T00:00:01.000Z</LastModified><Size>4194304</Size></Contents>
</ListBucketResult>`

const CONTEXT = 'fuzz'
const EPOCH_NAME = epochName({ cluster: 'ab'.repeat(16), group: 'shop', generation: 3, epoch: 12 })

/** A name that lies in a bucket, or the place of one: what is understood is written as it was. */
function homeName(input: Uint8Array): string | undefined {
  const text = Buffer.from(input).toString()
  const epoch = parseEpochName(text)
  if (epoch !== undefined) assert.equal(epochName(epoch), text)
  return epoch === undefined ? attempt(/^HOME_URL$/, () => parseHomeUrl(text)) : undefined
}

export const homeTargets: readonly Target[] = [
  {
    name: 'home-epoch',
    group: 'images',
    summary: 'an epoch in a second home: who reads it without the key, and who opens it',
    seeds: epochSeeds,
    mutate: mutateChecked,
    run: input =>
      attempt(
        /^(HOME_INVALID|RECOVERY_KEY_OTHER)$/,
        () => openEpoch(input, SECRET),
        ({ header }) => assert.deepEqual(decodeHeader(input), header)
      )
  },
  {
    name: 'home-stream',
    group: 'images',
    summary: 'the chunks of a stream in a second home',
    seeds: streamSeeds,
    mutate: mutateChecked,
    run: input =>
      attempt(
        /^HOME_INVALID$/,
        () => decodeStream(input),
        stream => assert.deepEqual(decodeStream(encodeStream(stream).bytes), stream)
      )
  },
  {
    name: 's3-listing',
    group: 'texts',
    summary: 'what a server of a bucket says is in it',
    seeds: () => [new Uint8Array(Buffer.from(LISTING))],
    run: input => {
      for (const { bytes, putMs } of readListing(Buffer.from(input).toString()).objects) {
        assert.equal(typeof bytes, 'number')
        assert.ok(!Number.isNaN(putMs))
      }
      return undefined
    }
  },
  {
    name: 'home-name',
    group: 'texts',
    summary: 'names of what is in a second home, and where that is',
    seeds: () =>
      [EPOCH_NAME, 'dir:/backup/', 's3://bucket/a/b?endpoint=http://localhost:9000&region=eu-1'].map(
        text => new Uint8Array(Buffer.from(text))
      ),
    run: homeName
  },
  {
    name: 'sealed-key',
    group: 'texts',
    summary: "a data key under another one, which a member wrote into the cluster's record",
    seeds: () => [new Uint8Array(Buffer.from(sealUnder(SECRET, CONTEXT, new Uint8Array(32).fill(9))))],
    run: input => {
      const key = openUnder(SECRET, CONTEXT, Buffer.from(input).toString())
      if (key !== undefined) assert.deepEqual(key, new Uint8Array(32).fill(9))
      return key === undefined ? 'not opened' : undefined
    }
  },
  {
    name: 'recovery-key',
    group: 'texts',
    summary: 'a recovery key as a person types it',
    seeds: () => [new Uint8Array(Buffer.from(recoveryKeyText(SECRET)))],
    run: input =>
      attempt(
        /^RECOVERY_KEY$/,
        () => parseRecoveryKey(Buffer.from(input).toString()),
        secret => assert.deepEqual(parseRecoveryKey(recoveryKeyText(secret)), secret)
      )
  }
]
