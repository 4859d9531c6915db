/** Mistakes about what is on disks: columns, registers, what is repaired and what is forgotten. */
import type { Mistake } from './mistake.ts'
import { allDie, allDieAndGoOn, allLosePower, filesEndEarly, peersDie, peersDieAgain } from './scenarios.ts'

export const STORE_MISTAKES: readonly Mistake[] = [
  {
    name: 'acknowledge-before-fsync',
    file: 'node/store/files.ts',
    edits: [{ find: 'constants.O_RDWR | constants.O_DSYNC | flags', replace: 'constants.O_RDWR | flags' }],
    why: 'a column is said to be durable when it is in the page cache: fast, and true until power is lost',
    scenario: allLosePower,
    seed: 1,
    promises: ['epochs']
  },
  {
    name: 'register-before-fsync',
    file: 'node/store/register-store.ts',
    edits: [{ find: 'this.#db.batch(batch, { sync: true })', replace: 'this.#db.batch(batch)' }],
    why: 'a voter promises and accepts before its disk knows',
    scenario: allLosePower,
    seed: 1,
    promises: ['epochs']
  },
  {
    name: 'register-a-write-behind',
    file: 'node/store/register-store.ts',
    edits: [
      { find: "const ENTRY = 'entry/'\n", replace: "const ENTRY = 'entry/'\nconst behind: unknown[] = []\n" },
      {
        find: 'this.#db.batch(batch, { sync: true })',
        replace: 'this.#db.batch(behind.splice(0, behind.length, ...batch) as typeof batch, { sync: true })'
      }
    ],
    why: 'what a voter says is written with what it says next: whoever dies with all others has lost one write, and numbers go on',
    scenario: allDieAndGoOn,
    seed: 1,
    promises: ['epochs']
  },
  {
    name: 'voter-forgets',
    file: 'node/store/register-store.ts',
    edits: [
      {
        find: 'entries.push([key.slice(ENTRY.length), open(key, value)])',
        replace: "if (!key.includes('register/')) entries.push([key.slice(ENTRY.length), open(key, value)])"
      }
    ],
    why: 'a voter that was started again does not know what it promised and accepted',
    scenario: allDie,
    seed: 1,
    promises: ['epochs']
  },
  {
    name: 'repair-forgets-a-column',
    file: 'node/agents/repair.ts',
    edits: [
      {
        find: 'await store.putColumn(manifest.stream, grid, column, bytes)',
        replace: 'if (column > 0) await store.putColumn(manifest.stream, grid, column, bytes)'
      }
    ],
    why: 'the first column of a stream is rebuilt, counted as repaired, and not stored',
    scenario: filesEndEarly,
    seed: 1,
    promises: ['redundancy']
  },
  {
    name: 'forgets-what-is-held',
    file: 'node/agents/housekeeping.ts',
    edits: [
      {
        find: 'images: keptImages(record).flatMap(hash => manifests.get(hash) ?? [])',
        replace: `images: keptImages(record).flatMap(hash =>
        Object.values(record.committed?.images ?? {}).includes(hash) ? (manifests.get(hash) ?? []) : [{ streams: [] }]
      )`
      }
    ],
    why: 'retention asks what the committed epoch needs, and not what is kept or held beside it',
    scenario: peersDie,
    seed: 1,
    promises: ['epochs']
  },
  {
    name: 'drops-manifests-alone',
    file: 'node/agents/dropping.ts',
    edits: [
      {
        find: 'await tried({ stream }, store.dropStream(stream))',
        replace: 'await Promise.resolve(stream)'
      }
    ],
    why: 'streams stay when what named them is gone: nobody misses anything until the disk is full',
    scenario: peersDieAgain,
    seed: 1,
    promises: ['bounds']
  }
]
