import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { decodeManifest, encodeManifest, manifestHash, readManifest } from '../../../node/image/manifest.ts'
import type { ImageManifest } from '../../../node/ports.ts'
import { MAX_TALKS, type Talk } from '../../../protocols/talks.ts'
import { storedAndRead } from './support.ts'

const fixture = (name: string) => readFileSync(join(import.meta.dirname, 'fixtures', `${name}.bin`))
const talk = (vm: string): Talk => ({
  vm,
  network: 'default',
  sent: 12,
  sentBytes: 1_800,
  heard: 11,
  heardBytes: 900,
  answers: 9,
  answerMs: 0.75
})

async function plain(): Promise<ImageManifest> {
  const stored = [fixture('manifest-2'), fixture('stream-manifest-1')]
  return await readManifest(manifestHash(fixture('manifest-2')), async name => {
    return stored.find(bytes => manifestHash(bytes) === name) ?? Buffer.alloc(0)
  })
}

test('a manifest tells with whom the VM had spoken', async () => {
  const talks = [talk('db'), talk('web')]
  expect(await storedAndRead({ ...(await plain()), talks })).toMatchObject({ talks })
})

test('a manifest of a VM that spoke with nobody is as one that says nothing of it', async () => {
  const image = await plain()
  expect(encodeManifest({ ...image, talks: [] }).hash).toBe(encodeManifest(image).hash)
  expect(await storedAndRead(image)).not.toHaveProperty('talks')
})

test('a manifest tells of no more than there is room for', async () => {
  const talks = Array.from({ length: MAX_TALKS + 1 }, (_, i) => talk(`v${i}`))
  const { objects } = encodeManifest({ ...(await plain()), talks })
  const [image] = objects.slice(-1)
  expect(() => decodeManifest(image?.bytes ?? Buffer.alloc(0))).toThrow(/talks/)
})
