/** The history of epochs on disk: what a crash, a full disk and rot leave of it. */
import { appendFile, readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { openEpochHistoryStore } from '../../node/store/epoch-history.ts'
import type { EpochHistoryStore, SeenEpoch } from '../../node/ports.ts'
import { imageOf, seenEpoch } from './epoch-history-support.ts'
import { memoryLog, withDirectory } from './store-support.ts'

const named = Array.from({ length: 6 }, (_, i) =>
  seenEpoch(i + 1, { vms: { a: { pauseMs: i, image: imageOf(i * 4096) } }, reason: i === 3 ? 'größer' : 'none' })
)

async function open(directory: string): Promise<EpochHistoryStore> {
  const store = await openEpochHistoryStore(directory, memoryLog())
  if (store === undefined) throw new Error('the store does not open')
  return store
}

async function reopened(directory: string): Promise<SeenEpoch[]> {
  const store = await open(directory)
  const found = await store.load()
  await store.close()
  return found
}

/** A file with all of `named`. */
async function written(directory: string): Promise<string> {
  const store = await open(directory)
  for (const epoch of named) await store.append([epoch])
  await store.close()
  return join(directory, 'epochs.log')
}

describe('the history of epochs on disk', () => {
  test('is there again after a restart, in its order', () =>
    withDirectory(async directory => {
      await written(directory)
      expect(await reopened(directory)).toEqual(named)
    }))

  test('has every whole line that was written before a crash, wherever that cut the file, and takes new ones', () =>
    withDirectory(async directory => {
      const path = await written(directory)
      const bytes = await readFile(path)
      const ends = [...bytes].flatMap((byte, at) => (byte === 0x0a ? [at + 1] : []))
      await fc.assert(
        fc.asyncProperty(fc.integer({ min: 0, max: bytes.length }), async length => {
          await writeFile(path, bytes.subarray(0, length))
          const whole = named.slice(0, Math.max(0, ends.filter(end => end <= length).length - 1))
          const store = await open(directory)
          expect(await store.load()).toEqual(whole)
          await store.append([seenEpoch(99)])
          await store.close()
          expect(await reopened(directory)).toEqual([...whole, seenEpoch(99)])
        }),
        { numRuns: 150 }
      )
    }))

  test('loses the lines that rot hits, and no others', () =>
    withDirectory(async directory => {
      const path = await written(directory)
      const bytes = await readFile(path)
      const header = bytes.indexOf(0x0a) + 1
      const lineAt = (at: number): number => bytes.subarray(header, at).filter(byte => byte === 0x0a).length
      await fc.assert(
        fc.asyncProperty(
          fc.integer({ min: header, max: bytes.length - 1 }),
          fc.integer({ min: 1, max: 255 }),
          async (at, flip) => {
            const rotten = Buffer.from(bytes)
            rotten[at] = (rotten[at] ?? 0) ^ flip
            await writeFile(path, rotten)
            const found = await reopened(directory)
            // A newline that is no more takes two lines with it; the last one's is a torn tail.
            const hit = bytes[at] === 0x0a ? [lineAt(at), lineAt(at) + 1] : [lineAt(at)]
            expect(found).toEqual(named.filter((_, line) => !hit.includes(line)))
          }
        ),
        { numRuns: 150 }
      )
    }))

  test('goes on behind a line that a full disk took a part of', () =>
    withDirectory(async directory => {
      let full = false
      const store = await openEpochHistoryStore(directory, memoryLog(), {
        append: async (file, bytes) => {
          await file.appendFile(full ? bytes.subarray(0, 30) : bytes)
          if (full) throw new Error('ENOSPC: no space left on device')
        }
      })
      await store?.append([seenEpoch(1)])
      full = true
      await expect(store?.append([seenEpoch(2)])).rejects.toMatchObject({ code: 'HISTORY_WRITE' })
      await expect(store?.replace([seenEpoch(2)])).rejects.toMatchObject({ code: 'HISTORY_WRITE' })
      full = false
      await store?.append([seenEpoch(3)])
      await store?.close()
      expect(await reopened(directory)).toEqual([seenEpoch(1), seenEpoch(3)])
    }))

  test('can be written anew, smaller, and goes on; what a crash left of that does no harm', () =>
    withDirectory(async directory => {
      await written(directory)
      await writeFile(join(directory, 'epochs.log.new'), 'half of it')
      const store = await open(directory)
      const before = store.bytes
      await store.replace([seenEpoch(5)])
      expect(store.bytes).toBeLessThan(before)
      await store.append([seenEpoch(6)])
      await store.close()
      expect(await reopened(directory)).toEqual([seenEpoch(5), seenEpoch(6)])
    }))

  test('that was written anew goes on in its new file also where the name of that has not come to the disk', () =>
    withDirectory(async directory => {
      const syncDirectory = async () => {
        throw new Error('EIO')
      }
      const store = await openEpochHistoryStore(directory, memoryLog(), { syncDirectory })
      await store?.append([seenEpoch(1)])
      await expect(store?.replace([seenEpoch(2)])).rejects.toMatchObject({ code: 'HISTORY_WRITE' })
      await store?.append([seenEpoch(3)])
      await store?.close()
      expect(await reopened(directory)).toEqual([seenEpoch(2), seenEpoch(3)])
    }))

  test('of a later format is left alone: a peer does without it, and says so', () =>
    withDirectory(async directory => {
      const path = await written(directory)
      await truncate(path, 0)
      await appendFile(path, 'diapause epoch history 9\n{}\n')
      const log = memoryLog()
      expect(await openEpochHistoryStore(directory, log)).toBeUndefined()
      expect(JSON.stringify(log.lines)).toContain('format')
      expect(await readFile(path, 'utf8')).toBe('diapause epoch history 9\n{}\n')
    }))
})
