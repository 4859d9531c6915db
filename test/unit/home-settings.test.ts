import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { SHARED_SECTIONS, sharedSettings } from '../../config/shared.ts'
import { configFromToml } from '../../node/host/config-file.ts'
import { credentialsIn, readCredentials } from '../../node/host/home-credentials.ts'
import { openConfigured } from '../../node/second-home/open.ts'

const head = '[cluster]\nname = "c"\n[peer]\nname = "p"\ndataDir = "data"\n'
const read = (text: string) => configFromToml(head + text, '/etc/diapause/peer.toml').home

describe('the second home in a config', () => {
  it('is none unless it is named', () => expect(read('')).toBeUndefined())

  it('has defaults, and a file beside the config', () => {
    expect(read('[home]\nurl = "s3://bucket/a"\ncredentialsFile = "keys.toml"\n')).toEqual({
      url: 's3://bucket/a',
      credentialsFile: '/etc/diapause/keys.toml',
      intervalMs: 3_600_000,
      keep: 24,
      megabytesPerSecond: 10
    })
  })

  it('is refused where it is none', () => {
    for (const url of ['/folder', 'http://host', 'dir:relative', 's3://'])
      expect(() => read(`[home]\nurl = "${url}"\n`), url).toThrow(/home\.url: expected "dir:\/FOLDER" or "s3:/)
  })
})

describe('a newcomer', () => {
  const text = '[home]\nurl = "s3://bucket/a"\ncredentialsFile = "keys.toml"\nkeep = 3\n[lease]\ndurationMs = 9000\n'

  it('is given the second home with the other settings that all have alike, and no credentials', () => {
    const shared = sharedSettings(configFromToml(head + text, '/etc/diapause/peer.toml'))
    expect(Object.keys(shared).sort()).toEqual([...SHARED_SECTIONS].sort())
    expect(shared['home']).toEqual({ url: 's3://bucket/a', intervalMs: 3_600_000, keep: 3, megabytesPerSecond: 10 })
    expect(shared['lease']).toMatchObject({ durationMs: 9_000 })
    expect(sharedSettings(configFromToml(head, '/etc/diapause/peer.toml'))).not.toHaveProperty('home')
  })

  it('that has no credentials yet runs, and says so whenever the second home is used', async () => {
    const home = openConfigured('s3://bucket/a', undefined)
    const refused = { code: 'HOME_CREDENTIALS' }
    await expect(home.put('a', new Uint8Array(1))).rejects.toMatchObject(refused)
    await expect(home.stat('a')).rejects.toMatchObject(refused)
    const listed = async () => {
      for await (const _ of home.list('')) break
    }
    await expect(listed()).rejects.toMatchObject(refused)
    expect(() => openConfigured('s3://B', undefined)).toThrow(expect.objectContaining({ code: 'HOME_URL' }))
  })
})

describe('credentials for a bucket', () => {
  let folder: string
  let file: string
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'diapause-credentials-'))
    file = join(folder, 'home.toml')
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  it('are read from a file that only its owner may read', async () => {
    writeFileSync(file, 'accessKeyId = "id"\nsecretAccessKey = "secret"\n', { mode: 0o600 })
    expect(await readCredentials(file)).toEqual({ accessKeyId: 'id', secretAccessKey: 'secret' })
    chmodSync(file, 0o640)
    await expect(readCredentials(file)).rejects.toMatchObject({ code: 'HOME_CREDENTIALS', message: /chmod 600/ })
  })

  it('are refused, and not told, where the file is wrong', async () => {
    for (const text of ['accessKeyId = "id"', 'secretAccessKey = "hush"\naccessKeyId = 3', 'secretAccessKey = "hush']) {
      writeFileSync(file, text, { mode: 0o600 })
      const refused = await readCredentials(file).then(
        () => undefined,
        (error: unknown) => error
      )
      expect(refused, text).toMatchObject({ code: 'HOME_CREDENTIALS' })
      expect((refused as Error).message, text).not.toContain('hush')
    }
    await expect(readCredentials(join(folder, 'none'))).rejects.toMatchObject({ code: 'HOME_CREDENTIALS' })
  })

  it('are those of the environment, where both parts are there', () => {
    const both = { AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: 'secret' }
    expect(credentialsIn(both)).toEqual({ accessKeyId: 'id', secretAccessKey: 'secret' })
    expect(credentialsIn({ ...both, AWS_SESSION_TOKEN: 't' })).toMatchObject({ sessionToken: 't' })
    expect(credentialsIn({ AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: '' })).toBeUndefined()
  })
})
