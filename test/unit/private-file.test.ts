import { execFileSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { readPrivateFile } from '../../node/private-file.ts'

describe('a file with a secret', () => {
  let folder: string
  let file: string
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'diapause-private-'))
    file = join(folder, 'word')
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  const read = (maxBytes = 100) =>
    readPrivateFile(file, { what: 'the word', maxBytes, unreadable: 'UNREADABLE', exposed: 'EXPOSED' })

  it('is read as it is where its owner alone may', async () => {
    writeFileSync(file, ' hush\n', { mode: 0o400 })
    expect(await read()).toBe(' hush\n')
    expect(await read(6)).toBe(' hush\n')
  })

  it.each([0o640, 0o604, 0o620, 0o601])('is refused where others may do anything with it (%o)', async mode => {
    writeFileSync(file, 'hush')
    chmodSync(file, mode)
    const refused = { code: 'EXPOSED', message: expect.stringContaining(`the word in ${file}: run chmod 600 ${file}`) }
    await expect(read()).rejects.toMatchObject(refused)
  })

  it("is read where its group may as well, if it is of the kind that a group shares, and nobody else's", async () => {
    const kind = { what: 'the word', maxBytes: 100, unreadable: 'UNREADABLE', exposed: 'EXPOSED', groupToo: true }
    writeFileSync(file, 'hush')
    chmodSync(file, 0o640)
    expect(await readPrivateFile(file, kind)).toBe('hush')
    chmodSync(file, 0o644)
    const refused = { code: 'EXPOSED', message: expect.stringContaining(`run chmod o= ${file}`) }
    await expect(readPrivateFile(file, kind)).rejects.toMatchObject(refused)
  })

  it('is refused where there is none, or more in it than can be right', async () => {
    await expect(read()).rejects.toMatchObject({ code: 'UNREADABLE', message: expect.stringContaining(file) })
    writeFileSync(file, 'hush', { mode: 0o600 })
    const refused = await read(3).catch((error: Error) => error)
    expect(refused).toMatchObject({
      code: 'UNREADABLE',
      message: `${file} has more than 3 bytes, too many for the word`
    })
  })

  it('may be a pipe, of which nobody knows how much is in it', async () => {
    execFileSync('mkfifo', ['-m', '600', file])
    const reading = read()
    writeFileSync(file, 'hush')
    expect(await reading).toBe('hush')
  })
})
