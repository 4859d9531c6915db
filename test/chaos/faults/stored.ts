/** Bytes that turn in the shards that a host keeps, and files of them that end early: under the peer, while it runs. */
import { existsSync, readdirSync, statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { hasCode } from '../../../node/errors.ts'
import { mapSegments, spoil } from '../../bench/rot-damage.ts'
import { type Fault, type Heal, nothing } from '../fault.ts'

/** Beyond some it makes no difference to what must be mended: the host's columns are asked from others. A guess. */
const MOST_DAMAGES = 8
const MOST_TRIES = 5

/** Nothing heals them but the peers: they find it when they read, or look, and rebuild it from others. */
const damage = (name: string, about: string, act: (store: string, random: () => number) => Promise<void>): Fault => ({
  name,
  about,
  lasts: { leastMs: 0, mostMs: 0 },
  reach: 'one',
  harms: true,
  async begin({ dataDir, random }): Promise<Heal> {
    const store = join(dataDir, 'shards')
    for (let tries = 1; existsSync(join(store, 'segments')); tries++) {
      try {
        await act(store, random)
        break
      } catch (error) {
        // Its peer removes files while we look.
        if (!hasCode(error, 'ENOENT') || tries === MOST_TRIES) throw error
      }
    }
    return nothing
  }
})

/** Anywhere: most hit columns, some what says whose they are, a manifest, or nothing that is still read. */
export const rot = damage('rot', 'bits turn in its shards', async (store, random) => {
  spoil(store, await mapSegments(store), 1 + Math.floor(random() * MOST_DAMAGES), random)
})

/** All columns behind that place are gone, and the peer that still writes to the file leaves a hole. */
export const truncation = damage('truncation', 'a file of its shards ends early', async (store, random) => {
  const folder = join(store, 'segments')
  const names = readdirSync(folder).sort()
  const name = names[Math.floor(random() * names.length)]
  if (name === undefined) return
  const path = join(folder, name)
  truncateSync(path, Math.floor(random() * statSync(path).size))
})
