/** Names of files that disks begin with, which are hashed once. */
import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { BaseNames } from '../../node/host/base-names.ts'

let folder: string
let path: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'names-'))
  path = join(folder, 'base')
})

afterAll(() => rm(folder, { recursive: true }))

const nameOf = (format: string, text: string): string => createHash('sha256').update(`${format}\n${text}`).digest('hex')

it('a base is named by its format and bytes, and is another when it is written', async () => {
  const names = await BaseNames.open(folder)
  await writeFile(path, 'one')
  expect(await names.of({ path, format: 'raw' })).toBe(nameOf('raw', 'one'))
  expect(await names.of({ path, format: 'qcow2' })).toBe(nameOf('qcow2', 'one'))
  const { atime, mtime } = await stat(path)
  await writeFile(path, 'two')
  await utimes(path, atime, mtime) // as if nobody had
  expect(await names.of({ path, format: 'raw' })).toBe(nameOf('raw', 'two'))
  await expect(names.of({ path: join(folder, 'none'), format: 'raw' })).rejects.toMatchObject({ code: 'ENOENT' })
})

it('what was hashed is known to the next run; a spoiled file of names costs hashing, no more', async () => {
  await writeFile(path, 'three')
  await (await BaseNames.open(folder)).of({ path, format: 'raw' })
  const file = join(folder, 'bases.json')
  const kept = await readFile(file, 'utf8')
  await writeFile(file, kept.replace(nameOf('raw', 'three'), 'c'.repeat(64)))
  expect(await (await BaseNames.open(folder)).of({ path, format: 'raw' })).toBe('c'.repeat(64))
  for (const spoiled of ['', '{}', '[1, ["a"], ["b", 3]]', kept.slice(0, -9), kept.replace(/[0-9a-f]{64}/g, 'x')]) {
    await writeFile(file, spoiled)
    expect(await (await BaseNames.open(folder)).of({ path, format: 'raw' })).toBe(nameOf('raw', 'three'))
  }
})
