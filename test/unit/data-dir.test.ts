import { spawn, spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openDataDir, processUsing } from '../../node/host/data-dir.ts'
import { loadOrCreateIdentity } from '../../node/host/identity.ts'

let folder: string
let dataDir: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'diapause-data-'))
  dataDir = join(folder, 'deep', 'data')
})

afterEach(() => rmSync(folder, { recursive: true }))

const open = (change: { peerId?: string; cluster?: string } = {}) =>
  openDataDir({ dataDir, peerId: '12D3KooWme', cluster: 'home', ...change })

/** Another process that opens the data folder and keeps it. */
async function otherProcess(): Promise<{ pid: number; kill: () => Promise<void> }> {
  const script = `
    import { openDataDir } from ${JSON.stringify(join(import.meta.dirname, '../../node/host/data-dir.ts'))}
    await openDataDir({ dataDir: ${JSON.stringify(dataDir)}, peerId: '12D3KooWme', cluster: 'home' })
    console.log('open')
    setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const closed = new Promise<void>(resolve => child.on('close', () => resolve()))
  await Promise.race([new Promise(resolve => child.stdout.once('data', resolve)), closed])
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL')
    await closed
  }
  return { pid: child.pid ?? 0, kill }
}

describe('a data folder', () => {
  it('is made at first use and opened again by the same peer', async () => {
    const first = await open()
    expect(JSON.parse(readFileSync(join(dataDir, 'peer.json'), 'utf8'))).toEqual({
      format: 1,
      peer: '12D3KooWme',
      cluster: 'home'
    })
    expect(statSync(dataDir).mode & 0o777).toBe(0o700)
    first.close()
    const second = await open()
    second.close()
  })

  it('is told to be unusable where nobody makes folders, without waiting for ever', async () => {
    dataDir = '/proc/diapause/deep'
    await expect(open()).rejects.toMatchObject({ code: 'DATA_DIR_UNUSABLE' })
    await expect(loadOrCreateIdentity(dataDir)).rejects.toMatchObject({ code: 'DATA_DIR_UNUSABLE' })
    dataDir = join(folder, 'file', 'data')
    writeFileSync(join(folder, 'file'), '')
    await expect(open()).rejects.toMatchObject({ code: 'DATA_DIR_UNUSABLE' })
  })

  it('notes that its peer has registers, for good; one of an older version has no such note', async () => {
    const first = await open()
    expect(first.hadRegisters).toBe(false)
    await first.noteRegisters()
    first.close()
    for (const _ of [1, 2]) {
      const again = await open()
      expect(again.hadRegisters).toBe(true)
      again.close()
    }
    await expect(open({ peerId: '12D3KooWyou' })).rejects.toMatchObject({ code: 'DATA_DIR_OTHER_PEER' })
  })

  it('of another peer, another cluster or another version is refused, and left unlocked', async () => {
    const mine = await open()
    mine.close()
    await expect(open({ peerId: '12D3KooWyou' })).rejects.toMatchObject({
      name: 'UsageError',
      code: 'DATA_DIR_OTHER_PEER',
      details: { expected: '12D3KooWyou', found: '12D3KooWme' }
    })
    await expect(open({ cluster: 'work' })).rejects.toMatchObject({ code: 'DATA_DIR_OTHER_CLUSTER' })
    writeFileSync(
      join(dataDir, 'peer.json'),
      JSON.stringify({ format: 2, peer: '12D3KooWme', cluster: 'home', new: 1 })
    )
    await expect(open()).rejects.toMatchObject({ code: 'DATA_DIR_VERSION', details: { expected: 1, found: 2 } })
    writeFileSync(join(dataDir, 'peer.json'), '{"format":')
    await expect(open()).rejects.toMatchObject({ name: 'UsageError', code: 'DATA_DIR_UNUSABLE' })
    expect(readdirSync(join(dataDir, 'lock'))).toEqual([])
  })

  it('that cannot be a folder is refused', async () => {
    writeFileSync(join(folder, 'deep'), '')
    await expect(open()).rejects.toMatchObject({ name: 'UsageError', code: 'DATA_DIR_UNUSABLE' })
  })

  it('is opened once at a time in one process', async () => {
    const first = await open()
    await expect(open()).rejects.toMatchObject({ code: 'DATA_DIR_IN_USE' })
    first.close()
    const second = await open()
    second.close()
  })

  it('in use by another process is refused until that process is killed', async () => {
    const other = await otherProcess()
    try {
      await expect(open()).rejects.toMatchObject({
        name: 'UsageError',
        code: 'DATA_DIR_IN_USE',
        details: { pid: other.pid }
      })
      expect(processUsing(dataDir)).toBe(other.pid)
    } finally {
      await other.kill()
    }
    expect(processUsing(dataDir)).toBeUndefined()
    expect(processUsing(join(folder, 'none'))).toBeUndefined()
    const mine = await open()
    expect(readdirSync(join(dataDir, 'lock'))).toHaveLength(1)
    mine.close()
  })

  it('that is closed to who asks is not taken for one that nobody uses', async () => {
    const mine = await open()
    chmodSync(folder, 0o755)
    const script = `
      import { processUsing } from ${JSON.stringify(join(import.meta.dirname, '../../node/host/data-dir.ts'))}
      const [closed, none] = ${JSON.stringify([dataDir, join(folder, 'none')])}
      process.setuid(65534)
      console.log(JSON.stringify([processUsing(closed), processUsing(none) ?? null]))`
    const args = ['--input-type=module', '-e', script]
    const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
    mine.close()
    expect(stdout, `${stderr} (only root can be another user: run this test so)`).toBe('["unseen",null]\n')
  })

  it('is free where the process id of a killed peer now belongs to another program, or to another boot', async () => {
    const first = await open()
    const [claim = ''] = readdirSync(join(dataDir, 'lock'))
    first.close()
    const boot = claim.slice(0, 8)
    writeFileSync(join(dataDir, 'lock', `${boot}-${process.ppid}-1`), '')
    writeFileSync(join(dataDir, 'lock', `00000000${claim.slice(8)}`), '')
    const mine = await open()
    expect(readdirSync(join(dataDir, 'lock'))).toEqual([expect.stringContaining(`-${process.pid}-`)])
    mine.close()
  })
})

describe('an identity', () => {
  it('is made once and is the same ever after', async () => {
    const made = await loadOrCreateIdentity(dataDir)
    expect(made.peerId).toMatch(/^12D3KooW/)
    const again = await loadOrCreateIdentity(dataDir)
    expect(again.peerId).toBe(made.peerId)
    expect(statSync(join(dataDir, 'identity.key')).mode & 0o777).toBe(0o600)
    expect(readdirSync(dataDir)).toEqual(['identity.key'])
  })

  it('is one, however many ask for it at once', async () => {
    const [one, ...others] = await Promise.all(Array.from({ length: 5 }, () => loadOrCreateIdentity(dataDir)))
    for (const other of others) expect(other.peerId).toBe(one?.peerId)
  })

  it('that is damaged or open to others is refused with what to do', async () => {
    await loadOrCreateIdentity(dataDir)
    const file = join(dataDir, 'identity.key')
    chmodSync(file, 0o644)
    await expect(loadOrCreateIdentity(dataDir)).rejects.toMatchObject({ name: 'UsageError', code: 'IDENTITY_EXPOSED' })
    chmodSync(file, 0o600)
    writeFileSync(file, readFileSync(file).subarray(0, 40))
    await expect(loadOrCreateIdentity(dataDir)).rejects.toMatchObject({ name: 'UsageError', code: 'IDENTITY_INVALID' })
  })
})
