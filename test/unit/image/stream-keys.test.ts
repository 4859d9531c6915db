/**
 * What a member that was removed can read, with all that it has and all that it could steal: the images of before, and nothing
 * that was sealed later. Real identities, real keys, the real pipeline.
 */
import { beforeAll, expect, test } from 'vitest'
import { createCodec } from '../../../node/erasure/codec.ts'
import { type Identity, identityFromSeed, identitySeed } from '../../../node/host/identity.ts'
import { createKeyBox } from '../../../node/host/key-box.ts'
import { groupSecret } from '../../../node/composition/hosting.ts'
import { CapturePipeline } from '../../../node/image/capture.ts'
import type { StreamKey } from '../../../node/image/facts.ts'
import { wholeImage } from '../../../node/image/known-images.ts'
import { PageState } from '../../../node/image/page-state.ts'
import { PAGES_PER_MIB } from '../../../node/image/page-table.ts'
import type { ImageManifest } from '../../../node/ports.ts'
import { giveKeys, removeMember, rotateKeys } from '../../../protocols/membership/changes.ts'
import { foundersRecord } from '../../../protocols/membership/genesis.ts'
import { type KeyMaking, openKeys } from '../../../protocols/membership/keys.ts'
import { type ClusterRecord, parseClusterRecord } from '../../../protocols/membership/record.ts'
import { pagesOfImage } from '../../contract/image-ram.ts'
import { frameLog } from '../frame-logs.ts'
import { deviceStream, factsOf, fakeMachine, MemoryCluster, PAGE, pageOf } from './support.ts'

const SECRET = new Uint8Array(32).fill(3)
const HOLDERS = ['a', 'b', 'c', 'd', 'e']
const PAGES = PAGES_PER_MIB

let stays: Identity
let removed: Identity
let joins: Identity
/** The cluster's record, every one that there was. */
const records: ClusterRecord[] = []
const cluster = new MemoryCluster()
const state = new PageState(PAGES, 0)
const images: ImageManifest[] = []
const contents: number[][] = []

const withKeys = (keys: readonly StreamKey[]) => factsOf({ keys })

const makingOf = ({ peerId, privateKey }: Identity, secret: Uint8Array | undefined): KeyMaking => ({
  self: peerId,
  box: createKeyBox(peerId, identitySeed(privateKey)),
  secret,
  wallMs: 1,
  needed: undefined
})

/** As `node/composition/hosting.ts` gives them to image workers. */
const groupKeys = (record: ClusterRecord, making: KeyMaking): StreamKey[] =>
  (openKeys(record, making) ?? []).toReversed().map(({ id, key }) => ({ id, key: groupSecret(key, 'g') }))

const now = (): ClusterRecord => records.at(-1) as ClusterRecord

function change(made: ClusterRecord | undefined): void {
  if (made === undefined) throw new Error('a change changed nothing')
  records.push(parseClusterRecord(made) as ClusterRecord)
}

/** An epoch of a VM whose pages are all as before but for these; sealed by the member that stays. */
async function epoch(...written: number[]): Promise<void> {
  const number = images.length + 1
  const base = images.at(-1)
  const pages = (contents.at(-1) ?? new Array<number>(PAGES).fill(0)).slice()
  for (const page of written) pages[page] = 1_000 * number + page
  const pipeline = new CapturePipeline({
    facts: withKeys(groupKeys(now(), makingOf(stays, SECRET))),
    state,
    codec: createCodec(),
    generation: 1,
    epoch: number,
    holders: HOLDERS,
    put: (grid, column, bytes) => cluster.putColumn({ stream: `g/v/1/${number}` }, grid, column, bytes),
    read: () => Promise.reject(new Error('nothing is written again'))
  })
  for (const [page, content] of pages.entries()) pipeline.page(page, content === 0 ? undefined : pageOf(content))
  pipeline.push(deviceStream(fakeMachine(new Map(), 1)))
  images.push(wholeImage(await pipeline.finish({ count: 0, pieces: frameLog().pieces() }), base))
  state.commit(number)
  contents.push(pages)
}

/** What is in the image of epoch `number`, with these keys. */
async function reads(number: number, keys: readonly StreamKey[], image = images[number - 1]): Promise<boolean> {
  if (image === undefined) throw new Error(`no epoch ${number}`)
  const all = await pagesOfImage(withKeys(keys), image, cluster)
  return (contents[number - 1] ?? []).every((content, page) => {
    const wanted = content === 0 ? Buffer.alloc(PAGE) : pageOf(content)
    return all.subarray(page * PAGE, (page + 1) * PAGE).equals(wanted)
  })
}

beforeAll(async () => {
  const [a, b, c] = await Promise.all([1, 2, 3].map(fill => identityFromSeed(new Uint8Array(32).fill(fill))))
  ;[stays, removed, joins] = [a, b, c] as [Identity, Identity, Identity]
  const address = '/ip4/10.0.0.1/tcp/1'
  const member = ({ peerId: id }: Identity, name: string) =>
    ({ id, name, address: `${address}${name.length}`, role: 'storage' }) as const
  records.push(foundersRecord('c', [member(stays, 'a'), member(removed, 'bb')]))
  await epoch(1, 2, 3)

  const going = now().members.map(each => (each.id === removed.peerId ? { ...each, leaving: true } : each))
  const voters = { ...now().voters, ids: [stays.peerId], since: { [stays.peerId]: 1 } }
  change(removeMember(removed.peerId, makingOf(stays, SECRET))({ ...now(), members: going, voters }))
  await epoch(2)

  const newcomer = { ...member(joins, 'ccc'), votes: false, leaving: false, forced: false }
  change({ ...now(), members: [...now().members, newcomer] })
  change(giveKeys(makingOf(stays, SECRET))(now()))
  change(rotateKeys(1, makingOf(joins, undefined))(now())) // by the newcomer, who was never told the secret
  await epoch(3)
})

test('each epoch is sealed under the newest key, and what has not changed stays under older ones', () => {
  expect(images.map(({ streams }) => streams.map(({ key }) => key ?? 0))).toEqual([[0], [0, 1], [0, 1, 2]])
})

test('who stays and who has joined later read every epoch, with the cluster secret or without', async () => {
  const keys = groupKeys(now(), makingOf(joins, undefined))
  expect(keys.map(({ id }) => id)).toEqual([0, 1, 2])
  expect(groupKeys(now(), makingOf(stays, SECRET))).toEqual(keys)
  for (const number of [1, 2, 3]) expect(await reads(number, keys)).toBe(true)
})

test('who was removed reads the epochs of before', async () => {
  const keys = groupKeys(records[0] as ClusterRecord, makingOf(removed, SECRET))
  expect(await reads(1, keys)).toBe(true)
})

test('who was removed reads no later epoch, with its identity, the secret, all records and all bytes', async () => {
  const making = makingOf(removed, SECRET)
  for (const record of records.slice(1)) expect(groupKeys(record, making)).toEqual([])
  const had = groupKeys(records[0] as ClusterRecord, making)
  for (const number of [2, 3]) {
    await expect(reads(number, had)).rejects.toMatchObject({
      code: 'IMAGE_KEY',
      message: expect.stringMatching(/removed/)
    })
    // A manifest that lies about the key, and a key that lies about its number.
    const image = images[number - 1] as ImageManifest
    const streams = image.streams.map(stream => ({ ...stream, key: 0 }))
    await expect(reads(number, had, { ...image, streams })).rejects.toMatchObject({ code: 'IMAGE_SEAL' })
    const secret = had[0]?.key as Uint8Array
    const forged = [0, 1, 2].map(id => ({ id, key: secret }))
    await expect(reads(number, forged)).rejects.toMatchObject({ code: 'IMAGE_SEAL' })
  }
})

test('a key that was dropped is told apart from one that is not here yet', async () => {
  const keys = groupKeys(now(), makingOf(stays, SECRET)).filter(({ id }) => id !== 0)
  await expect(reads(3, keys)).rejects.toMatchObject({
    code: 'IMAGE_KEY',
    message: expect.stringMatching(/dropped/),
    details: { key: 0, newest: 2 }
  })
})
