/** What a disk does not let go: what is removed all the same, and what is told of it. */
import { randomBytes } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Level } from 'level'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { dropAll } from '../../node/agents/dropping.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { ShardStore } from '../../node/ports.ts'
import { openShardStore } from '../../node/store/shard-store.ts'
import { clock, memoryLog, withDirectory } from './store-support.ts'

const STREAMS = ['g/a/1/1', 'g/a/1/2', 'g/a/1/3']
const STAYS = 'what is kept no more cannot be removed from the disk; it is tried again'

afterEach(() => void vi.restoreAllMocks())

describe('what is kept no more', () => {
  it('is tried each for itself, and what stays is told in one line', async () => {
    const log = memoryLog()
    const dropped: string[] = []
    const drop = async (what: string): Promise<void> => {
      if (what === 'g/a/1/1' || what === 'g/a/1/2' || what === 'm1') throw new Error(`${what}: EIO`)
      dropped.push(what)
    }
    await dropAll({ dropStream: drop, dropManifest: drop }, { streams: STREAMS, manifests: ['m1', 'm2'] }, log)
    expect(dropped).toEqual(['g/a/1/3', 'm2'])
    const fields = { stream: 'g/a/1/1', error: 'g/a/1/1: EIO', failed: 3, untried: 0 }
    expect(log.lines).toEqual([{ level: 'warn', message: STAYS, fields }])
  })

  /** Three streams of a store whose index takes nothing any more, for that reason. */
  async function dropWhile(
    why: string,
    look: (log: ReturnType<typeof memoryLog>, store: ShardStore, files: string[]) => unknown
  ) {
    await withDirectory(async dir => {
      const log = memoryLog()
      const store = await openShardStore(dir, { log, clock })
      for (const stream of STREAMS) await store.putColumn(stream, 0, 0, randomBytes(300))
      vi.spyOn(Level.prototype, 'batch').mockRejectedValue(new Error(why))
      await dropAll(store, { streams: STREAMS, manifests: [] }, log)
      vi.restoreAllMocks()
      await look(log, store, await readdir(join(dir, 'segments')))
      await dropAll(store, { streams: STREAMS, manifests: [] }, log)
      expect(await store.streams()).toEqual([])
      await store.close()
    })
  }

  it('goes where the index has failed for another stream, as one bad block of it makes it', async () => {
    const log = memoryLog()
    const dropped: string[] = []
    const drop = async (what: string): Promise<void> => {
      if (what !== 'g/a/1/2') throw new DiapauseError('STORE_IO', `${what}: EIO`, { details: { index: true } })
      dropped.push(what)
    }
    await dropAll({ dropStream: drop, dropManifest: drop }, { streams: STREAMS, manifests: [] }, log)
    expect(dropped).toEqual(['g/a/1/2'])
    expect(log.lines).toMatchObject([{ fields: { failed: 2, untried: 0 } }])
  })

  it('stays all where the index fails, which is tried twice', async () => {
    await dropWhile('it failed', async ({ lines }, store, files) => {
      expect(lines.filter(({ message }) => message === 'the index failed and is opened again')).toHaveLength(2)
      const told = lines.filter(({ message }) => message === STAYS).map(({ fields }) => fields)
      expect(told).toEqual([expect.objectContaining({ stream: 'g/a/1/1', failed: 2, untried: 1 })])
      expect(files).toHaveLength(3)
      expect(await store.streams()).toHaveLength(3)
    })
  })

  it('has its files removed where the disk is full, also for the index', async () => {
    await dropWhile('No space left on device', ({ lines }, _store, files) => {
      const told = lines.filter(({ message }) => message === STAYS).map(({ fields }) => fields)
      expect(told).toEqual([expect.objectContaining({ stream: 'g/a/1/1', failed: 3, untried: 0 })])
      expect(files).toEqual([])
    })
  })
})
