import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { StartedFile } from '../../node/store/started.ts'

describe('the file of started generations', () => {
  let dir: string
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'diapause-started-'))
  })
  afterEach(() => rm(dir, { recursive: true, force: true }))

  test('remembers the newest generation of each group over a restart', async () => {
    const file = await StartedFile.open(dir)
    await Promise.all([file.note('a', 1), file.note('b', 4), file.note('a', 3), file.note('a', 2)])
    const again = await StartedFile.open(dir)
    expect([again.of('a'), again.of('b'), again.of('c')]).toEqual([3, 4, 0])
    expect(await readdir(dir)).toEqual(['started.json'])
  })
  test('a generation that cannot be written is not promised', async () => {
    const file = await StartedFile.open(dir)
    await rm(dir, { recursive: true })
    await expect(file.note('a', 1)).rejects.toMatchObject({ code: 'STARTED_WRITE' })
  })
  test.each(['', '[', '{"a":"x"}', '{"a":1.5}', 'null'])(
    'a damaged file (%s) is refused and not overwritten',
    async text => {
      await writeFile(join(dir, 'started.json'), text)
      await expect(StartedFile.open(dir)).rejects.toMatchObject({ code: 'STARTED_CORRUPT' })
    }
  )
})
