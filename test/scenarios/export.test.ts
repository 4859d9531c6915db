/**
 * Nobody is locked in: a VM of a cluster goes on in a QEMU that knows nothing of diapause, and comes back as another group.
 * The tests are one story in order, on one cluster.
 */
import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { StockQemu } from '../contract/stock-qemu.ts'
import type { ClusterPeer } from '../demo/cluster.ts'
import type { VmSpec } from '../../protocols/group.ts'
import { type BankReport, parseConsole } from '../guest/console.ts'
import { Bank, calm, GROUP } from './bank.ts'

const main = join(import.meta.dirname, '../../node/main.ts')
/** Longest wait for anything. Several times what a busy machine with two cores took. */
const LIMIT_MS = 60_000

interface Ended {
  readonly code: number
  readonly out: string
  readonly err: string
}

describe('a VM that leaves a cluster and comes back', () => {
  let bank: Bank
  let left: ClusterPeer
  let right: ClusterPeer
  let witness: ClusterPeer
  let folder: string
  let dir: string
  let epoch: number
  /** What its first disk holds. */
  let base: string
  /** The last that the VM had said when its epoch was asked for. */
  let said: BankReport
  let stock: StockQemu | undefined

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'diapause-export-'))
    dir = join(folder, 'vm1')
    base = join(folder, 'base')
    await writeFile(base, Buffer.concat([randomBytes(70_000), Buffer.alloc(4 << 20), randomBytes(4096 * 33)]))
    bank = await Bank.start({
      peers: 3,
      roles: ['storage', 'storage', 'witness'],
      settings: { ...calm, shards: { k: 1, m: 1 } },
      vms: 1,
      memoryMiB: 128,
      disks: [{ sizeMiB: 8, base: { path: base, format: 'raw' } }, { sizeMiB: 3 }]
    })
    ;[left, right, witness] = bank.cluster.peers as [ClusterPeer, ClusterPeer, ClusterPeer]
    said = await heard(consoleOf(left, GROUP), () => true)
    await bank.epoch(left)
    epoch = await bank.epoch(left) // in two streams
  }, 240_000)

  afterAll(async () => {
    await stock?.end()
    await bank?.cluster.stop()
    await rm(folder, { recursive: true, force: true })
  })

  /** `diapause ARGS` at a peer. */
  function run(peer: ClusterPeer, ...args: string[]): Promise<Ended> {
    return new Promise(resolve => {
      execFile(
        process.execPath,
        [main, ...args, '--socket', peer.socketPath],
        { timeout: LIMIT_MS },
        (error, out, err) => resolve({ code: typeof error?.code === 'number' ? error.code : 0, out, err })
      )
    })
  }

  const consoleOf = (peer: ClusterPeer, group: string) => join(peer.consoleDir, `${group}.vm1.log`)

  /** The last report of a console, when it is as wanted. */
  async function heard(file: string, wanted: (report: BankReport) => boolean): Promise<BankReport> {
    const deadline = performance.now() + LIMIT_MS
    for (;;) {
      const last = parseConsole(await readFile(file, 'latin1').catch(() => '')).at(-1)
      if (last !== undefined && wanted(last)) return last
      if (performance.now() > deadline) throw new Error(`waited in vain for ${file}: ${JSON.stringify(last)}`)
      bank.cluster.check()
      await sleep(50)
    }
  }

  const refusals = async (...cases: readonly (readonly [ClusterPeer, readonly string[], RegExp, number])[]) => {
    for (const [peer, args, message, code] of cases) {
      const ended = await run(peer, ...args)
      expect(ended.err, args.join(' ')).toMatch(message)
      expect(ended, args.join(' ')).toMatchObject({ code, out: '' })
    }
    expect((await readdir(folder)).filter(name => name.includes('partial'))).toEqual([])
  }

  it('is written by any storage member as a directory whose files are what is said of them', async () => {
    const { code, out, err } = await run(right, 'export', 'vm1', '--epoch', `${epoch}`, '--out', dir, '--json')
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(JSON.parse(out)).toMatchObject({ directory: dir, image: { group: GROUP, epoch, spec: { id: 'vm1' } } })
    const { files } = JSON.parse(await readFile(join(dir, 'image.json'), 'utf8')) as { files: Record<string, object> }
    expect((await readdir(dir)).sort()).toEqual([...Object.keys(files), 'image.json'].sort())
    expect(Object.keys(files).sort()).toEqual(['README.txt', 'disk0.qcow2', 'disk1.qcow2', 'ram.migration', 'run.sh'])
    for (const [name, about] of Object.entries(files)) {
      const bytes = await readFile(join(dir, name))
      expect(about, name).toEqual({ bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') })
    }
  })

  it('has disks that qemu-img finds no fault with, and that hold what they must', async () => {
    const tool = promisify(execFile)
    const raw = join(folder, 'raw')
    for (const [name, sizeMiB, content] of [
      ['disk0.qcow2', 8, await readFile(base)],
      ['disk1.qcow2', 3, Buffer.alloc(0)]
    ] as const) {
      await writeFile(raw, Buffer.concat([content, Buffer.alloc(sizeMiB * 2 ** 20 - content.length)]))
      const check = await tool('qemu-img', ['check', '--output=json', join(dir, name)])
      expect(check.stdout).not.toMatch(/leaks|corruptions/)
      const compared = await tool('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', join(dir, name), raw])
      expect(compared.stdout).toMatch(/identical/)
    }
  })

  it('is read whole by who reads slowly, while later epochs are committed, and is given up then', async () => {
    const records = left.client.exportImage({ group: GROUP, vm: 'vm1' }, new AbortController().signal)
    for (let i = 0; i < 3; i++) await records.next()
    const later = [await bank.epoch(left), await bank.epoch(left)]
    await sleep(3_000) // what is not needed is forgotten 2 s after an epoch
    let kind = ''
    for await (const record of records) kind = record.kind
    expect(kind).toBe('end')
    await bank.until('the epoch to be released', async () => {
      const [record] = (await left.client.groups()).filter(({ id }) => id === GROUP)
      return record?.held === undefined ? true : undefined
    })
    await refusals(
      // The one that was read is not kept any longer.
      [left, ['export', 'vm1', '--out', join(folder, 'late'), '--epoch', `${epoch}`], new RegExp(`${later[1]} is`), 2]
    )
  }, 60_000)

  it('goes on in a stock QEMU that its script starts', async () => {
    const consoleFile = join(folder, 'console')
    const copy = join(folder, 'copy') // its disks change with it
    await cp(dir, copy, { recursive: true })
    stock = new StockQemu(join(copy, 'run.sh'), consoleFile)
    expect(await stock.loaded()).toBe('running')
    const later = await heard(consoleFile, ({ uptimeMs }) => uptimeMs > said.uptimeMs)
    expect(later).toMatchObject({ nonce: said.nonce, money: said.money })
    await stock.end()
  }, 90_000)

  it('goes on in the cluster under another name, on the member that was asked for, and takes epochs there', async () => {
    const { code, out, err } = await run(left, 'import', dir, '--group', 'copy', '--owner', right.name)
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(out).toMatch(/^group copy with VM vm1 goes on from epoch \d+ of group bank$/m)
    const copy = await heard(consoleOf(right, 'copy'), ({ uptimeMs }) => uptimeMs > said.uptimeMs)
    expect(copy).toMatchObject({ nonce: said.nonce, money: said.money })
    const record = (await right.client.groups()).find(({ id }) => id === 'copy')
    expect(record).toMatchObject({ committed: { epoch: 1 }, lastEpoch: 1, owners: { vm1: right.id } })
    await bank.until('its VM to be whole', () =>
      bank.events('vm.complete').some(event => event.group === 'copy') ? true : undefined
    )
    expect(await left.client.takeEpoch('copy')).toMatchObject({ epoch: 2, outcome: 'committed' })
    // The one that it was copied from has not noticed.
    const original = await heard(consoleOf(left, GROUP), ({ uptimeMs }) => uptimeMs > copy.uptimeMs)
    expect(original.nonce).toBe(said.nonce)
  }, 90_000)

  it('refuses to export what is not there, and leaves nothing behind', async () => {
    expect(await readdir(folder)).not.toContain('other')
    const out = join(folder, 'other')
    const wish = (vm: string, ...more: string[]) => ['export', vm, '--out', out, '--group', GROUP, ...more]
    await refusals(
      [left, ['export', 'vm1', '--out', dir, '--group', GROUP], /vm1 is there already.*EXPORT_EXISTS/, 2],
      [left, ['export', 'vm1', '--out', out], /groups .*copy.* have a VM vm1.*GROUP_MISSING/, 2],
      [left, wish('vm1', '--epoch', '999'), /Epoch 999 .* not kept; \d+ is.*EPOCH_NOT_KEPT/, 2],
      [left, wish('vm7'), /no VM "vm7".*VM_UNKNOWN/, 2],
      [witness, wish('vm1'), /witness.*ask a storage member.*NOT_STORAGE/, 2]
    )
  }, 60_000)

  it('refuses to import what is not whole, not of its kind, or there already', async () => {
    const other = async (
      name: string,
      change: (ram: Buffer, about: { image: { accel: string; spec: VmSpec } }) => Buffer
    ) => {
      const copy = join(folder, name)
      await cp(dir, copy, { recursive: true })
      const about = JSON.parse(await readFile(join(dir, 'image.json'), 'utf8')) as {
        image: { accel: string; spec: VmSpec }
        files: Record<string, object>
      }
      const ram = change(await readFile(join(dir, 'ram.migration')), about)
      const sha256 = createHash('sha256').update(ram).digest('hex')
      if (name !== 'digest') about.files['ram.migration'] = { bytes: ram.length, sha256 }
      await writeFile(join(copy, 'ram.migration'), ram)
      await writeFile(join(copy, 'image.json'), JSON.stringify(about))
      return ['import', copy, '--group', 'bad']
    }
    const flipped = (ram: Buffer) => {
      ram[1_000_000] = 1 ^ (ram[1_000_000] ?? 0)
      return ram
    }
    const kvm = (ram: Buffer, about: { image: { accel: string } }) => {
      about.image.accel = about.image.accel === 'kvm' ? 'tcg' : 'kvm'
      return ram
    }
    const nowhere = (ram: Buffer, about: { image: { spec: VmSpec } }) => {
      about.image.spec = { ...about.image.spec, kernel: '/nowhere/vmlinuz' }
      return ram
    }
    const unkept = (ram: Buffer, about: { image: { spec: VmSpec } }) => {
      about.image.spec = { ...about.image.spec, initrd: `content:${'ab'.repeat(32)}` }
      return ram
    }
    const q35 = (ram: Buffer) => Buffer.concat([ram.subarray(0, 13), Buffer.from('pc-q35-7.2   '), ram.subarray(26)])
    await refusals(
      [left, ['import', join(folder, 'none')], /cannot read .*image\.json.*IMPORT_FOLDER/, 2],
      [left, await other('digest', flipped), /not the file that image\.json describes.*IMPORT_DIGEST/, 2],
      [left, await other('accel', kvm), /processor's state fits only its own kind.*IMPORT_ACCEL/, 2],
      [left, await other('machine', q35), /machine type "pc-q35-7\.2 *".*IMPORT_MACHINE/, 2],
      [left, await other('noise', () => Buffer.alloc(5_000, 7)), /no migration stream.*IMPORT_MACHINE/, 2],
      [left, await other('short', ram => ram.subarray(0, 5_000_000)), /ended.*MIGRATION_STREAM_TRUNCATED/, 1],
      [left, await other('kernel', nowhere), /\/nowhere\/vmlinuz at p1, \/nowhere\/vmlinuz at p2.*FILES_MISSING/, 2],
      [left, await other('initrd', unkept), /no member within reach has the file.*FILE_MISSING/, 1],
      [left, ['import', dir, '--group', GROUP], /a group "bank" already.*GROUP_EXISTS/, 2],
      [left, ['import', dir, '--group', 'new', '--owner', witness.name], /no living storage member.*HOST_NOT_ALIVE/, 2],
      [witness, ['import', dir, '--group', 'new'], /ask a storage member.*NOT_STORAGE/, 2]
    )
    expect((await left.client.groups()).map(({ id }) => id).sort()).toEqual([GROUP, 'copy'])
  }, 120_000)
})
