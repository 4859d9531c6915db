/**
 * A cluster that is lost with all its disks goes on as another one: all that is left of it is a bucket of an S3 server and a
 * recovery key on paper. The tests are one story in order.
 */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { HomeEpoch } from '../../node/ports.ts'
import { bootPaths } from '../../protocols/boot-files.ts'
import { CREDENTIALS, S3Server } from '../contract/s3-server.ts'
import type { ClusterPeer } from '../demo/cluster.ts'
import { buildGuest } from '../guest/build.ts'
import { Bank, type BankSetup, calm, GROUP } from './bank.ts'

const main = join(import.meta.dirname, '../../node/main.ts')
/** Longest wait for anything. Several times what a busy machine with two cores took. */
const LIMIT_MS = 60_000

interface Ended {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** `diapause ARGS` at a peer. */
function run(peer: ClusterPeer, ...args: string[]): Promise<Ended> {
  return new Promise(resolve => {
    const command = [main, ...args, '--socket', peer.socketPath]
    execFile(process.execPath, command, { timeout: LIMIT_MS }, (error, out, err) =>
      resolve({ code: typeof error?.code === 'number' ? error.code : error === null ? 0 : -1, out, err })
    )
  })
}

describe('a cluster that is lost with all its disks', () => {
  let server: S3Server
  let folder: string
  let bank: Bank | undefined
  let keyFile: string
  let credentialsFile: string
  let place: string[]
  /** What was in the VMs when the last epoch was taken. */
  let nonces: readonly string[]
  let money: number
  let last: number
  /** What their disks hold. */
  let disk: Buffer
  /** What they boot from, at the hosts of the first cluster. */
  let boot: { kernel: string; initrd: string }

  const settings = { ...calm, shards: { k: 1, m: 1 } }
  const setup: BankSetup = { peers: 2, vms: 2, memoryMiB: 128, settings }

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'diapause-second-home-'))
    server = await S3Server.start()
    keyFile = join(folder, 'key')
    credentialsFile = join(folder, 'credentials')
    const lines = Object.entries(CREDENTIALS).map(([name, value]) => `${name} = "${value}"\n`)
    await writeFile(credentialsFile, lines.join(''), { mode: 0o600 })
    place = ['--from', server.url('site-a'), '--credentials-file', credentialsFile]
    const base = join(folder, 'base')
    disk = randomBytes(300_000)
    await writeFile(base, disk)
    const home = { url: server.url('site-a'), credentialsFile, intervalMs: 1_000 }
    boot = { kernel: join(folder, 'kernel'), initrd: join(folder, 'initrd') }
    const guest = await buildGuest()
    await copyFile(guest.kernel, boot.kernel)
    await copyFile(guest.initrd, boot.initrd)
    bank = await Bank.start({
      ...setup,
      boot,
      settings: { ...settings, home },
      disks: [{ sizeMiB: 8, base: { path: base, format: 'raw' } }]
    })
  }, 240_000)

  afterAll(async () => {
    await bank?.cluster.stop()
    await server?.stop()
    await rm(folder, { recursive: true, force: true })
  })

  const theBank = (): Bank => bank as Bank
  const p = (name: string): ClusterPeer => theBank().peer(name)

  /** Until the peer that runs the first VM has copied it, or a later one. */
  const copied = (epoch: number) =>
    theBank().until(`epoch ${epoch} to be copied`, async () => {
      const { groups } = await p('p1').client.home()
      const found = groups.find(({ group }) => group === GROUP)
      return found?.last !== undefined && found.last.epoch >= epoch ? found.last : undefined
    })

  it('copies nothing before there is a recovery key, and says so', async () => {
    const pushed = await run(p('p2'), 'home', 'push', GROUP, '--all')
    expect(pushed.err).toMatch(/no recovery key.*HOME_NO_KEY/)
    const { code, out, err } = await run(p('p1'), 'recovery-key', 'new')
    expect({ code, err }).toEqual({ code: 0, err: '' })
    const [key = ''] = /^ {4}(.*)$/m.exec(out)?.slice(1) ?? []
    expect(key).toMatch(/^(\w{4}-){13}\w{4}$/)
    await writeFile(keyFile, key, { mode: 0o600 })
    expect((await run(p('p2'), 'recovery-key', 'new')).err).toMatch(
      /has recovery key \w{16} already.*RECOVERY_KEY_THERE/
    )
  }, 60_000)

  it('copies what it commits to the bucket, and of later epochs what is new', async () => {
    const first = await copied(await theBank().epoch(p('p1')))
    ;({ nonces, money } = await theBank().audit())
    expect(await run(p('p2'), 'epochs', 'policy', GROUP, '--last', '2')).toMatchObject({ code: 0, err: '' })
    last = await theBank().epoch(p('p1'))
    const second = await copied(last)
    expect(second.streamsCopied).toBeGreaterThan(0)
    expect(second.bytesSent).toBeLessThan(first.bytesSent)
    const { code, out } = await run(p('p2'), 'home', 'verify', GROUP, '--deep', '--epoch', `${last}`)
    expect(out).toMatch(/all read/)
    expect(code).toBe(0)
    const status = (await run(p('p1'), 'home', 'status')).out
    expect(status).toMatch(/^sealed to recovery key \w{16}, made 20/m)
    expect(status).toMatch(new RegExp(`^${GROUP}: copied by p1; epoch ${last} at 20.* sent$`, 'm'))
  }, 120_000)

  it('tells the owner of the bucket names and sizes, and nothing of what VMs hold', async () => {
    const names = await readdir(server.directory, { recursive: true, withFileTypes: true })
    const files = names.filter(each => each.isFile()).map(each => join(each.parentPath, each.name))
    const [audited = ''] = nonces
    for (const file of files) {
      const bytes = await readFile(file)
      for (const hidden of [audited, 'BANK vm=', 'console=ttyS0']) expect(bytes.includes(hidden), file).toBe(false)
    }
    expect(files.length).toBeGreaterThan(5)
  })

  it('is gone', async () => {
    const { dir } = theBank().cluster
    for (const peer of theBank().cluster.peers) await theBank().cluster.killPeer(peer)
    await theBank().cluster.stop()
    bank = undefined
    await expect(readdir(dir)).rejects.toThrow(/ENOENT/)
    for (const file of ['base', 'kernel', 'initrd']) await rm(join(folder, file)) // they were on the disks
  }, 60_000)

  it('goes on as another, of which only the bucket and the key are asked', async () => {
    let restored: readonly HomeEpoch[] = []
    bank = await Bank.start({
      ...setup,
      peers: 3,
      auditsBefore: 1,
      begin: async ({ peers: [first, second] }) => {
        const [one, other] = [first as ClusterPeer, second as ClusterPeer]
        expect((await run(other, 'home', 'list', ...place)).out).toMatch(new RegExp(`${GROUP} +${last} `))
        const restore = ['home', 'restore', ...place, '--recovery-key-file', keyFile, '--json']
        const young = await run(one, ...restore)
        expect(young).toMatchObject({ code: 2, err: expect.stringMatching(/HOME_YOUNG.*run twice/) as string })
        const { code, out, err } = await run(one, ...restore, '--force')
        expect({ code, err }).toEqual({ code: 0, err: '' })
        restored = JSON.parse(out) as HomeEpoch[]
      }
    })
    expect(restored).toMatchObject([{ group: GROUP, epoch: last, vms: ['vm1', 'vm2'] }])
    const after = await bank.audit()
    expect(after).toEqual({ money, gaps: 0, broken: 0, faults: [], nonces })
    await bank.until('its VMs to be whole', () =>
      new Set(
        theBank()
          .events('vm.complete')
          .map(({ vm }) => vm)
      ).size === setup.vms
        ? true
        : undefined
    )
    expect(await bank.epoch(p('p2'))).toBeGreaterThan(1)
    expect((await bank.record()).retention).toMatchObject({ keepLast: 2 })
  }, 240_000)

  it('has what its VMs boot from on every host, although it is on none of their paths', async () => {
    const { vms } = await theBank().record()
    const names = bootPaths(vms)
    expect(names).toEqual(names.map(() => expect.stringMatching(/^content:[0-9a-f]{64}$/) as string))
    for (const { dataDir } of theBank().cluster.peers) {
      const kept = await readdir(join(dataDir, 'files'))
      expect(kept.sort()).toEqual(names.map(name => name.replace('content:', '')).sort())
    }
  })

  it('has its disks, although what they began with is gone', async () => {
    const exported = join(folder, 'exported')
    const { code, err } = await run(p('p2'), 'export', 'vm2', '--out', exported)
    expect({ code, err }).toEqual({ code: 0, err: '' })
    const raw = join(folder, 'raw')
    await promisify(execFile)('qemu-img', ['convert', '-O', 'raw', join(exported, 'disk0.qcow2'), raw])
    const content = await readFile(raw)
    expect(content.length).toBe(8 << 20)
    expect(content.equals(Buffer.concat([disk, Buffer.alloc(content.length - disk.length)]))).toBe(true)
  }, 60_000)

  it('is not restored over itself, nor with another key, nor from where it is not', async () => {
    const otherKey = join(folder, 'other-key')
    const { out } = await run(p('p1'), 'recovery-key', 'new', '--json')
    await writeFile(otherKey, (JSON.parse(out) as { key: string }).key, { mode: 0o600 })
    const from = (prefix: string) => ['--from', server.url(prefix), '--credentials-file', credentialsFile]
    for (const [args, message] of [
      [[...place, '--recovery-key-file', keyFile, '--force'], /a group "bank" already.*GROUP_EXISTS/],
      [[...place, '--recovery-key-file', otherKey], /no epoch in .* that recovery key \w+ opens.*HOME_NO_EPOCH/],
      [[...from('site-b'), '--recovery-key-file', keyFile], /HOME_NO_EPOCH/],
      [[...place, '--recovery-key-file', credentialsFile], /no recovery key.*RECOVERY_KEY/],
      [['--recovery-key-file', keyFile], /has no second home.*HOME_NONE/]
    ] as const) {
      const ended = await run(p('p1'), 'home', 'restore', ...args)
      expect(ended.err).toMatch(message)
      expect(ended.code).toBe(2)
    }
  }, 60_000)
})
