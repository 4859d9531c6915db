/** Faults of the chaos runs that start peers again: with damaged votes, and as another version. Do they do what they say, and heal? Needs root. */
import { cp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openRegisterStore } from '../../node/store/register-store.ts'
import { registerRot, registerTruncation } from '../chaos/faults/registers.ts'
import { upgradeRoll } from '../chaos/faults/upgrade.ts'
import { mainOf, NEWER } from '../scenarios/newer.ts'
import { generator } from '../sim/kernel.ts'
import { type Patient, withPatient } from './chaos-support.ts'

describe('registers', () => {
  const folderOf = (patient: Patient): string => join(patient.dataDir, 'registers')

  /** Entries in a log and in tables. */
  async function vote(folder: string, from: number): Promise<void> {
    for (let i = from; i < from + 3; i++) {
      const store = await openRegisterStore(folder, { made: i > 0 })
      await store.persist([[`group/g${i}`, new Uint8Array(500).fill(i)]])
      await store.close()
    }
  }

  async function entries(folder: string): Promise<number> {
    const store = await openRegisterStore(folder, { made: true })
    try {
      return (await store.load()).length
    } finally {
      await store.close()
    }
  }

  async function bytesOf(folder: string): Promise<Record<string, string>> {
    const names = (await readdir(folder)).sort()
    return Object.fromEntries(
      await Promise.all(
        names.map(async name => [name, (await readFile(join(folder, name))).toString('base64')] as const)
      )
    )
  }

  it.each([registerRot, registerTruncation])(
    'are damaged by $name so that a voter refuses them, and are at last as they were',
    async fault => {
      for (const seed of [1, 2, 3, 4, 5, 6]) {
        await withPatient({ random: generator(seed) }, async patient => {
          const folder = folderOf(patient)
          await vote(folder, 0)
          const before = await bytesOf(folder)
          const heal = await fault.begin(patient)
          expect(await bytesOf(folder)).not.toEqual(before)
          await expect(entries(folder), `seed ${seed}`).rejects.toMatchObject({
            code: expect.stringMatching(/^REGISTER_STORE_/)
          })
          await heal()
          expect(await bytesOf(folder)).toEqual(before)
          expect(await entries(folder)).toBe(3)
        })
      }
    }
  )

  it('stay where the peer has voted on: what it holds then is newer than what was there before', async () => {
    await withPatient({}, async patient => {
      const folder = folderOf(patient)
      await vote(folder, 0)
      const copy = join(patient.scratchDir, 'whole')
      await cp(folder, copy, { recursive: true })
      const heal = await registerRot.begin(patient)
      // As if it had hit nothing that is read.
      await rm(folder, { recursive: true })
      await cp(copy, folder, { recursive: true })
      await vote(folder, 3)
      await heal()
      expect(await entries(folder)).toBe(6)
    })
  })
})

describe('an upgrade of all peers', () => {
  it('starts each with the program of a next version, and at last with its own', async () => {
    await withPatient({ program: ['-e', 'console.log("own"); setInterval(() => {}, 1000)'] }, async patient => {
      expect(patient.lines).toEqual(['own'])
      await upgradeRoll.prepare?.(patient)
      const tree = join(patient.scratchDir, 'newer')
      expect((await stat(mainOf(tree))).isFile()).toBe(true)
      expect(JSON.parse(await readFile(join(tree, 'package.json'), 'utf8'))).toMatchObject({ version: NEWER })
      const heal = await upgradeRoll.begin(patient)
      expect(patient.lines.at(-1)).toContain(NEWER)
      await heal()
      expect(patient.lines.at(-1)).toBe('own')
    })
  })
})
