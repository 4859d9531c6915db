/**
 * What a person can get wrong about a peer, in real processes: each ends at once with exit code 2 and one message that
 * names what is wrong and what to do, and leaves data folders as they were. The peers here are witnesses, which need no
 * QEMU, but where QEMU is the question.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { stringify } from 'smol-toml'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { apiSocketPath } from '../../node/edge/api.ts'
import { ApiClient } from '../../node/edge/client.ts'
import { loadOrCreateIdentity } from '../../node/host/identity.ts'

const root = join(import.meta.dirname, '../..')

interface Ended {
  readonly code: number | null
  readonly err: string
}

function start(file: string, args: readonly string[]): { child: ChildProcess; ended: Promise<Ended> } {
  const command = ['--pdeathsig', 'KILL', process.execPath, join(root, file), ...args] // no peer outlives a killed test
  const child = spawn('setpriv', command, { stdio: ['ignore', 'ignore', 'pipe'] })
  let err = ''
  child.stderr.on('data', (part: Buffer) => (err += part.toString()))
  return { child, ended: new Promise(resolve => child.on('close', code => resolve({ code, err }))) }
}

describe('a peer that cannot start as it was asked to', () => {
  let dir: string
  let dataDir: string
  let secretFile: string
  /** A good config; `peer` starts with it, changed. */
  let good: Record<string, Record<string, unknown>> & { members: Record<string, unknown>[] }
  const children: ChildProcess[] = []

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'diapause-bad-'))
    dataDir = join(dir, 'data')
    secretFile = join(dir, 'secret')
    await writeFile(secretFile, 'ab'.repeat(32), { mode: 0o600 })
    const address = `/ip4/127.0.0.1/tcp/${await freePort()}`
    const me = (await loadOrCreateIdentity(dataDir)).peerId
    const other = (await loadOrCreateIdentity(join(dir, 'other'))).peerId
    good = {
      cluster: { name: 'office', secretFile },
      peer: { name: 'me', dataDir, runDir: join(dir, 'run'), listen: address },
      members: [
        { name: 'me', id: me, address, role: 'witness' },
        { name: 'other', id: other, address: '/ip4/127.0.0.1/tcp/9', role: 'storage' }
      ]
    } as unknown as typeof good
  })

  afterEach(async () => {
    for (const child of children.splice(0)) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
    await rm(dir, { recursive: true, force: true })
  })

  /** `change` gets a copy of the good config. */
  async function startWith(change: (config: typeof good) => void = () => {}) {
    const config = structuredClone(good)
    change(config)
    const file = join(dir, 'peer.toml')
    await writeFile(file, stringify(config))
    const started = start('node/main.ts', ['up', '--config', file])
    children.push(started.child)
    return started
  }

  /** Resolves when a peer answers on the socket in `runDir`; never where it ends before. */
  async function answers({ child }: { child: ChildProcess }, runDir = join(dir, 'run')): Promise<ChildProcess> {
    const client = new ApiClient(apiSocketPath(runDir))
    for (;;) {
      const status = await client.status().catch(() => undefined)
      if (status?.pid === child.pid) return child
      if (child.exitCode !== null) return await new Promise(() => {})
      await sleep(20)
    }
  }

  async function refusal(change?: (config: typeof good) => void): Promise<string> {
    const started = await startWith(change)
    const { code, err } = await Promise.race([
      started.ended,
      answers(started).then(() => Promise.reject(new Error('it starts instead of refusing')))
    ])
    expect({ code, err }).toMatchObject({ code: 2, err: expect.stringMatching(/^diapause: /) })
    expect(err).not.toMatch(/^ {4}at /m)
    return err
  }

  /** A peer that runs on `dataDir`. */
  async function startGood(): Promise<ChildProcess> {
    const started = await startWith()
    const failed = started.ended.then(ended => Promise.reject(new Error(`it ended with ${JSON.stringify(ended)}`)))
    failed.catch(() => {}) // the end that is wanted, later
    return await Promise.race([answers(started), failed])
  }

  async function runOnce(): Promise<void> {
    const child = await startGood()
    child.kill('SIGTERM')
    await once(child, 'exit')
    expect(child.exitCode).toBe(0)
  }

  it('names an option that it does not know', async () => {
    const { code, err } = await start('node/main.ts', ['up', '--bogus']).ended
    expect({ code, err }).toMatchObject({ code: 2, err: expect.stringContaining("unknown option '--bogus'") })
  })

  it('names the config file that is not there, and every key with a wrong value: what was expected, what was found', async () => {
    const missing = await start('node/main.ts', ['up', '--config', join(dir, 'none.toml')]).ended
    expect(missing).toMatchObject({ code: 2, err: expect.stringContaining(`${dir}/none.toml`) })
    const err = await refusal(config => {
      config['epochs'] = { intervalMs: 'often' }
      config['lease'] = { durationMs: 1 }
    })
    expect(err).toContain('epochs.intervalMs: expected a whole number from 0 to 86400000, found "often"')
    expect(err).toContain('lease.durationMs: expected a whole number from 100 to 600000, found 1')
  })

  it('says which port is taken', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const err = await refusal(config => (config['peer'] = { ...config['peer'], listen: `/ip4/127.0.0.1/tcp/${port}` }))
    await new Promise(resolve => server.close(resolve))
    expect(err).toContain(`/ip4/127.0.0.1/tcp/${port}`)
    expect(err).toContain('in use')
  })

  it('does not touch a data folder of another peer, of another cluster, or of another format version', async () => {
    await runOnce()
    const peerFile = join(dataDir, 'peer.json')
    const before = await readFile(peerFile, 'utf8')

    const cluster = await refusal(config => (config['cluster'] = { name: 'home', secretFile }))
    expect(cluster).toMatch(/belongs to cluster "office", but cluster.name is "home".* \[DATA_DIR_OTHER_CLUSTER\]/)

    const fields = JSON.parse(before) as { peer: string; format: number }
    await writeFile(peerFile, JSON.stringify({ ...fields, peer: '12D3KooWother' }))
    expect(await refusal()).toMatch(/belongs to peer 12D3KooWother, but this peer is 12D3.* \[DATA_DIR_OTHER_PEER\]/)

    await writeFile(peerFile, JSON.stringify({ ...fields, format: 99 }))
    expect(await refusal()).toMatch(/data format 99; this one reads \d+.* \[DATA_DIR_VERSION\]/)

    await writeFile(peerFile, '{"format":')
    expect(await refusal()).toMatch(/peer.json is damaged.* \[DATA_DIR_UNUSABLE\]/)

    await writeFile(peerFile, before)
    await runOnce()
  })

  it('does not start beside a living peer on the same data folder, which goes on', async () => {
    const child = await startGood()
    const err = await refusal(config => (config['peer'] = { ...config['peer'], runDir: join(dir, 'run2') }))
    expect(err).toContain(`${dataDir} is in use by process ${child.pid}`)
    expect(child.exitCode).toBeNull()
    expect((await new ApiClient(apiSocketPath(join(dir, 'run'))).status()).pid).toBe(child.pid)
  })

  it('says how to come to a cluster where it has none, and how members change where its founders differ', async () => {
    expect(await refusal(config => (config.members = []))).toMatch(/diapause init.*diapause join.*\[NO_CLUSTER\]/)
    await runOnce()
    const fewer = await refusal(config => {
      config.members = [{ ...config.members[0], role: 'storage' }]
      config['shards'] = { k: 1, m: 1 }
    })
    expect(fewer).toMatch(/not those that cluster "office" began with.*\[FOUNDERS_CHANGED\]/)
  })

  it('names the QEMU that is not there and says how to get one', async () => {
    const err = await refusal(config => {
      config.members = config.members.map(member => ({ ...member, role: 'storage' }))
      config['shards'] = { k: 1, m: 1 }
      config['hypervisor'] = { qemu: 'qemu-system-none' }
    })
    expect(err).toContain('qemu-system-none')
    expect(err).toMatch(/install/)
    expect(existsSync(join(dir, 'run/api.sock'))).toBe(false)
  })

  it('says what is wrong with the secret and how to make one', async () => {
    const missing = await refusal(config => (config['cluster'] = { name: 'office', secretFile: join(dir, 'none') }))
    expect(missing).toMatch(/cannot read cluster.secretFile .*none/)
    const unnamed = await refusal(config => (config['cluster'] = { name: 'office' }))
    expect(unnamed).toMatch(/cluster.secretFile is missing.*\[SECRET_MISSING\]/)
    await chmod(secretFile, 0o644)
    expect(await refusal()).toMatch(/others may read .*secret: run chmod 600 .*\[SECRET_EXPOSED\]/)
    await chmod(secretFile, 0o600)
    await writeFile(secretFile, 'swordfish')
    const malformed = await refusal()
    expect(malformed).toContain('32 bytes in hex')
    expect(malformed).toContain('openssl rand -hex 32')
    expect(malformed).not.toContain('swordfish')
  })

  it('tells its id where it is not among the members, and whose the id is where that is another one', async () => {
    const [, other] = good.members
    const stranger = await refusal(config => {
      config['peer'] = { ...config['peer'], dataDir: join(dir, 'new') }
    })
    const id = (await loadOrCreateIdentity(join(dir, 'new'))).peerId
    expect(stranger).toContain(`id = "${id}"`)

    // Exchanged names, or a copied folder.
    const exchanged = await refusal(config => {
      config['peer'] = { ...config['peer'], dataDir: join(dir, 'other') }
    })
    expect(exchanged).toMatch(new RegExp(`${String(other?.['id'])}\\) is member "other", but peer.name is "me"`))
  })
})

describe('npm run demo', () => {
  it('refuses an unknown option with exit code 2 before it does anything', async () => {
    const { code, err } = await start('test/demo/main.ts', ['--bogus']).ended
    expect({ code, err }).toMatchObject({ code: 2, err: expect.stringContaining("'--bogus'") })
  })

  it('does not end what is not a kept demo', async () => {
    const { code, err } = await start('test/demo/main.ts', ['--stop', '/tmp']).ended
    expect({ code, err }).toMatchObject({ code: 2, err: expect.stringContaining('not the folder of a kept demo') })
  })
})

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => server.close(resolve))
  return port
}
