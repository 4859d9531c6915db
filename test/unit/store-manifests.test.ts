import { hash } from 'node:crypto'
import { expect, it } from 'vitest'
import { type Files, nodeFiles } from '../../node/store/files.ts'
import { openManifests } from '../../node/store/manifests.ts'
import { memoryLog, withDirectory } from './store-support.ts'

const BYTES = new Uint8Array([1, 2, 3])
const NAME = hash('sha256', BYTES)

/** A disk whose folder is synced as often as `outcomes` says, each time as it says. */
function disk(...outcomes: (() => Promise<void>)[]): { readonly files: Files; readonly synced: () => number } {
  let synced = 0
  const syncDirectory = async (): Promise<void> => {
    await outcomes[synced++]?.()
  }
  return { files: { ...nodeFiles, syncDirectory }, synced: () => synced }
}

const well = async (): Promise<void> => {}
const badly = (): Promise<void> => Promise.reject(new Error('EIO'))

it('a manifest whose name has not come to the disk counts as stored for nobody who puts it again', async () => {
  await withDirectory(async dir => {
    const { files, synced } = disk(well, badly, badly, well)
    const manifests = await openManifests(dir, files, memoryLog())
    for (let i = 0; i < 2; i++) {
      await expect(manifests.put(NAME, BYTES)).rejects.toMatchObject({ code: 'STORE_IO' })
      expect(await manifests.get(NAME)).toBeDefined()
    }
    await manifests.put(NAME, BYTES)
    expect(synced()).toBe(4)
    await manifests.put(NAME, BYTES)
    expect(synced()).toBe(4)
  })
})

it('a manifest that is put twice at once is stored for neither before its name is on the disk', async () => {
  await withDirectory(async dir => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const { files, synced } = disk(
      well,
      () => promise,
      () => promise
    )
    const manifests = await openManifests(dir, files, memoryLog())
    const told: string[] = []
    const puts = ['first', 'second'].map(async who => {
      if (who === 'second') await expect.poll(synced).toBe(2) // the first has named it
      await manifests.put(NAME, BYTES)
      told.push(who)
    })
    await expect.poll(synced).toBe(3)
    expect(told).toEqual([])
    resolve()
    await Promise.all(puts)
  })
})

it('what a run that was killed has named is brought to the disk before it counts as stored', async () => {
  await withDirectory(async dir => {
    const { files } = disk(well, badly)
    const manifests = await openManifests(dir, files, memoryLog())
    await expect(manifests.put(NAME, BYTES)).rejects.toMatchObject({ code: 'STORE_IO' })
    const again = disk()
    const opened = await openManifests(dir, again.files, memoryLog())
    expect(again.synced()).toBe(1)
    await opened.put(NAME, BYTES)
    expect(again.synced()).toBe(1)
  })
})
