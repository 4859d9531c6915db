/**
 * Disks that are read over NBD until they are local, with real QEMU in both ways of capture: a guest lives on its ext4 while
 * most of it is elsewhere and its source fails, is cut meanwhile, and has all of it at last; and is stopped at any time.
 */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type LazyDisks, PATIENCE_MS, serveLazily } from '../../node/agents/lazy-disks.ts'
import { DiapauseError } from '../../node/errors.ts'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import { blockServing } from '../../node/nbd/server.ts'
import type { BlockExtent, BlockSource, Machine, Restore } from '../../node/ports.ts'
import type { DiskSpec, VmSpec } from '../../protocols/group.ts'
import { buildGuest } from '../guest/build.ts'
import { counterVm, makeCounterDisk, parseCounter } from '../guest/counter.ts'
import { bootDiskVm, makeBootDisk, parsePc } from '../guest/disk.ts'
import { BLOCK } from './block-support.ts'
import { receive } from './hypervisor-support.ts'
import { clock, memoryLog } from './real-clock.ts'

const MIB = 1 << 20
const SIZES_MIB = [64, 4] as const
const BOOT_MS = 60_000
/** Longer reads than a guest makes, which QEMU's streaming does. */
const LONG_BYTES = 256 << 10
const ZEROS = Buffer.alloc(BLOCK)

/** A disk in memory. Long reads fail while `failing`; one of its end waits for `lastMayCome`. */
class MemoryDisk implements BlockSource {
  readonly #content: Buffer
  readonly lastAsked = Promise.withResolvers<void>()
  lastMayCome = Promise.resolve()
  failing = true
  shortReads = 0
  longBytes = 0

  constructor(content: Buffer) {
    this.#content = content
  }

  get bytes(): number {
    return this.#content.length
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    if (length <= LONG_BYTES) this.shortReads++
    else if (this.failing) throw new DiapauseError('SHARD_LOST', 'too few shards')
    else this.longBytes += length
    if (length > LONG_BYTES && offset + length === this.bytes) {
      this.lastAsked.resolve()
      await this.lastMayCome
    }
    return this.#content.subarray(offset, offset + length)
  }

  async extents(offset: number, length: number, most: number): Promise<BlockExtent[]> {
    const found: { length: number; zero: boolean }[] = []
    for (let at = offset; at < offset + length; ) {
      const end = Math.min(at - (at % BLOCK) + BLOCK, offset + length)
      const zero = ZEROS.subarray(0, end - at).equals(this.#content.subarray(at, end))
      const last = found.at(-1)
      if (last?.zero === zero) last.length += end - at
      else if (found.length === most) break
      else found.push({ length: end - at, zero })
      at = end
    }
    return found
  }
}

let folder: string
let spec: VmSpec
let base: Buffer
let machine: Machine | undefined
let lazy: LazyDisks | undefined

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lazy-'))
  mkdirSync(join(folder, 'files'))
  writeFileSync(join(folder, 'files/big'), randomBytes(16 * MIB))
  const path = join(folder, 'base.raw')
  await makeCounterDisk(path, SIZES_MIB[0], join(folder, 'files'))
  base = readFileSync(path)
  // A base that is not there: what the image holds is all.
  const disks: DiskSpec[] = SIZES_MIB.map(sizeMiB => ({ sizeMiB }))
  spec = counterVm(await buildGuest(), { memoryMiB: 96, disks, intervalUs: 2_000 })
}, 240_000)

afterEach(async () => {
  await machine?.destroy()
  await lazy?.end()
  machine = undefined
  lazy = undefined
})

afterAll(() => rm(folder, { recursive: true, force: true }))

type Capture = 'dirty' | 'portable'

/** A VM that is started with disks that are elsewhere. */
async function startLazily(name: string, capture: Capture, disks: readonly MemoryDisk[], spec: VmSpec) {
  const log = memoryLog()
  const image = { disks, closeDisks: async () => {} } as unknown as Restore
  const socketPath = join(folder, `${name}.disks`)
  const sizes = disks.map(({ bytes }) => bytes)
  const [group, serve, restore] = ['g', blockServing(log), Promise.resolve(image)] as const
  const served = await serveLazily({ group, vm: 'v', sizes, restore, serve, socketPath, clock, log })
  lazy = served
  const settings = { qemu: 'qemu-system-x86_64', accel: 'auto', capture, ramDir: '/dev/shm', trialMs: 5_000 } as const
  const runDir = join(folder, name)
  const hypervisor = await createQemuHypervisor({ settings, peer: `${name}-${process.pid}`, runDir, log, clock })
  const [consolePath, layers] = [join(folder, `${name}.log`), join(folder, `${name}.layers`)]
  await writeFile(consolePath, '')
  const ended: string[] = []
  const onExit = (why: string) => void ended.push(why)
  const vm = hypervisor.define({
    spec,
    ends: [],
    consolePath,
    disks: { folder: layers, starts: served.starts },
    onExit
  })
  machine = vm
  await vm.start()
  const says = () => readFile(consolePath, 'utf8')
  return { vm, log, lazy: served, socketPath, layers, ended, says }
}

/** It has booted. */
async function startCounter(name: string, capture: Capture, disks: readonly MemoryDisk[]) {
  const started = await startLazily(name, capture, disks, spec)
  const reports = async () => parseCounter(await started.says())
  const told = async (id: number, command: string) => {
    await started.vm.type(`${command} ${id}\n`)
    const answer = async () => (await reports()).find(report => report.id === id)
    await expect.poll(answer, { timeout: 30_000 }).toBeDefined()
    return await answer()
  }
  await expect.poll(async () => (await reports()).length, { timeout: BOOT_MS }).toBeGreaterThan(0)
  return { ...started, told }
}

/** A well disk whose end comes when it is let go. */
function gated(content: Buffer) {
  const [disk, last] = [new MemoryDisk(content), Promise.withResolvers<void>()]
  randomBytes(MIB).copy(content, content.length - MIB)
  disk.failing = false
  disk.lastMayCome = last.promise
  return { disk, asked: disk.lastAsked.promise, letGo: last.resolve }
}

describe.each(['dirty', 'portable'] as const)('disks that are elsewhere, with %s capture', capture => {
  it('are read and written before they are local, which comes when their source is well', {
    timeout: 3 * BOOT_MS
  }, async () => {
    const disks = [new MemoryDisk(base), new MemoryDisk(Buffer.alloc(SIZES_MIB[1] * MIB))]
    const {
      vm,
      log,
      lazy: served,
      socketPath,
      layers,
      ended,
      told
    } = await startCounter(`lazy-${capture}`, capture, disks)
    let here = false
    void vm.disks.here.then(() => (here = true))
    expect(await told(1, 'check')).toMatchObject({ wrong: 0 })
    expect(disks[0]?.shortReads).toBeGreaterThan(0)

    const path = join(folder, `lazy-${capture}.cut`)
    const stream = await receive(path)
    await vm.prepareCut()
    const cut = await vm.cut(path, async () => {})
    await cut.streamed
    await stream.close()
    expect(cut.layers.map(({ disk }) => disk)).toEqual([0, 1])
    const failed = expect.objectContaining({ fields: expect.objectContaining({ job: 'stream' }) })
    await expect
      .poll(() => log.lines.filter(({ level }) => level !== 'debug'), { timeout: 3 * PATIENCE_MS })
      .toContainEqual(failed)
    expect(here).toBe(false)

    for (const disk of disks) disk.failing = false
    await vm.disks.here
    const { bytes } = await served.end()
    expect(bytes).toBeGreaterThan(16 * MIB)
    expect(bytes).toBeLessThan(40 * MIB)
    await expect(stat(socketPath)).rejects.toThrow('ENOENT')
    // Nothing has been merged into them yet: they are what was served.
    for (const [index, disk] of [base, Buffer.alloc(SIZES_MIB[1] * MIB)].entries()) {
      const raw = join(folder, `local-${index}`)
      execFileSync('qemu-img', ['convert', '-U', '-O', 'raw', join(layers, `d${index}.local`), raw])
      expect(readFileSync(raw).equals(disk)).toBe(true)
    }
    vm.disks.release(cut.layers)
    await told(2, 'drop')
    expect(await told(3, 'check')).toMatchObject({ wrong: 0 })
    expect(ended).toEqual([])
  })

  // Of QEMU 7.2: what a job changes while the disks are drained leaves them so for ever.
  it('are used on by a VM that is stopped while the last of them comes', { timeout: 2 * BOOT_MS }, async () => {
    const first = gated(Buffer.from(base))
    const second = new MemoryDisk(Buffer.alloc(SIZES_MIB[1] * MIB))
    second.failing = false
    const { vm, ended, told } = await startCounter(`stopped-${capture}`, capture, [first.disk, second])
    await first.asked
    const stopped = vm.stop()
    await sleep(300)
    first.letGo()
    await stopped
    await vm.resume()
    await vm.disks.here
    await told(2, 'drop')
    expect(await told(3, 'check')).toMatchObject({ wrong: 0 })
    expect(ended).toEqual([])
  })

  it('are left alone while a VM stands still whose cut a stop broke off: QEMU has given them up then', {
    timeout: 2 * BOOT_MS
  }, async () => {
    const disks = [new MemoryDisk(base), new MemoryDisk(Buffer.alloc(SIZES_MIB[1] * MIB))]
    const { vm, log, ended, told } = await startCounter(`broken-off-${capture}`, capture, disks)
    const path = join(folder, `broken-off-${capture}.cut`)
    const stream = await receive(path)
    await vm.prepareCut()
    let stopped: Promise<void> | undefined
    const cut = vm.cut(path, async () => {
      stopped = vm.stop()
      for (const disk of disks) disk.failing = false
      log.lines.length = 0
    })
    await expect(cut).rejects.toMatchObject({ code: 'HYPERVISOR_STATE' })
    await stopped
    await sleep(3_000)
    expect(log.lines.filter(({ level }) => level === 'warn')).toEqual([])
    await vm.resume()
    await vm.disks.here
    await stream.close()
    await told(2, 'drop')
    expect(await told(3, 'check')).toMatchObject({ wrong: 0 })
    expect(ended).toEqual([])
  })

  it('are booted from by a VM that its guest turns off while the last of them comes', {
    timeout: 2 * BOOT_MS
  }, async () => {
    const path = join(folder, `off-${capture}.disk`)
    await makeBootDisk(path)
    const content = Buffer.alloc(16 * MIB)
    readFileSync(path).copy(content)
    const { disk, asked, letGo } = gated(content)
    const pc = { ...bootDiskVm(path), nics: [], disks: [{ sizeMiB: 16 }] }
    const { vm, ended, says } = await startLazily(`off-${capture}`, capture, [disk], pc)
    const counts = async (boots: number) => {
      const seen = async () => parsePc(await says()).filter(line => line.boots === boots).length
      await expect.poll(seen, { timeout: BOOT_MS }).toBeGreaterThan(2)
    }
    await counts(1)
    await asked
    await vm.type('o')
    await sleep(300)
    letGo()
    await vm.disks.here
    await counts(2)
    expect(ended).toEqual([])
  })
})
