/**
 * Images of a VM with disks, real QEMU at both ends: what an image holds of the disks is what the guest had written at its
 * cut, also after epochs that came to nothing; a restored VM finds its disks as old as its RAM, reads them from the image until
 * they are here, and is cut meanwhile.
 */
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { LocalDisks } from '../../node/agents/local-disks.ts'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import { createImageWorker } from '../../node/image/image-worker.ts'
import { blockServing } from '../../node/nbd/server.ts'
import type { Hypervisor, ImageManifest, ImageWorker, Machine, MachineDisks, Restore } from '../../node/ports.ts'
import { disksOf, type DiskSpec, type VmSpec } from '../../protocols/group.ts'
import { buildGuest } from '../guest/build.ts'
import { counterInRam, counterVm, fileIn, highestOf, makeCounterDisk, parseCounter } from '../guest/counter.ts'
import { frameLog } from '../unit/frame-logs.ts'
import { MemoryCluster, quietLog } from '../unit/image/support.ts'
import { clock, memoryLog } from './real-clock.ts'

const MIB = 1 << 20
const SIZES_MIB = [64, 4] as const
const MEMORY_MIB = 96
const HOLDERS = ['a', 'b', 'c', 'd', 'e']
const BOOT_MS = 60_000

interface Vm {
  readonly machine: Machine
  readonly worker: ImageWorker
  readonly disks: LocalDisks
  console(): Promise<string>
}

let folder: string
let hypervisor: Hypervisor
let spec: VmSpec
const cluster = new MemoryCluster()
const vms: Vm[] = []
let [epoch, commands, generation] = [0, 0, 0]

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'di-'))
  mkdirSync(join(folder, 'files'))
  writeFileSync(join(folder, 'files/big'), randomBytes(6 * MIB))
  const path = join(folder, 'base.raw')
  await makeCounterDisk(path, SIZES_MIB[0], join(folder, 'files'))
  const disks: DiskSpec[] = [{ sizeMiB: SIZES_MIB[0], base: { path, format: 'raw' } }, { sizeMiB: SIZES_MIB[1] }]
  spec = counterVm(await buildGuest(), { memoryMiB: MEMORY_MIB, disks, intervalUs: 2_000 })
  const settings = {
    qemu: 'qemu-system-x86_64',
    accel: 'auto',
    capture: 'dirty',
    ramDir: '/dev/shm',
    trialMs: 5_000
  } as const
  const log = memoryLog()
  hypervisor = await createQemuHypervisor({ settings, peer: `images-${process.pid}`, runDir: folder, log, clock })
}, 240_000)

afterEach(async () => {
  for (const { machine, worker, disks } of vms.splice(0)) {
    await machine.destroy()
    await worker.close()
    await disks.end()
  }
})

afterAll(() => rm(folder, { recursive: true, force: true }))

const openWorker = (): Promise<ImageWorker> =>
  createImageWorker({
    group: 'bank',
    vm: spec.id,
    memoryMiB: MEMORY_MIB,
    accel: hypervisor.accel,
    key: new Uint8Array(32).fill(9),
    shape: { k: 3, m: 2, symbolBytes: 65_536 },
    disks: disksOf(spec).map(({ sizeMiB }) => ({ blocks: sizeMiB * 256 })),
    cluster,
    log: quietLog
  })

async function define(
  begin: (disks: LocalDisks, worker: ImageWorker) => Promise<MachineDisks | undefined>
): Promise<Vm> {
  const consolePath = join(folder, `${++generation}.log`)
  await writeFile(consolePath, '')
  const worker = await openWorker()
  const log = memoryLog()
  const path = (kind: string): string => join(folder, kind)
  const disks = new LocalDisks(
    spec,
    { group: 'bank', generation },
    { clock, log, serveBlocks: blockServing(log), path }
  )
  const ends: string[] = []
  const options = {
    spec,
    ends: [],
    consolePath,
    disks: await begin(disks, worker),
    onExit: (why: string) => ends.push(why)
  }
  const machine = hypervisor.define(options)
  const vm = { machine, worker, disks, console: () => readFile(consolePath, 'utf8') }
  vms.push(vm)
  return vm
}

async function booted(): Promise<Vm> {
  const vm = await define(async disks => disks.fresh())
  await vm.machine.start()
  await expect.poll(async () => parseCounter(await vm.console()).length, { timeout: BOOT_MS }).toBeGreaterThan(0)
  return vm
}

async function resumed(image: ImageManifest): Promise<Vm> {
  let restoring: Promise<Restore> | undefined
  const vm = await define((disks, worker) => {
    restoring = worker.restore(image)
    return disks.restored(restoring)
  })
  const socketPath = join(folder, `${generation}.in`)
  const restore = await restoring
  let serving: Promise<unknown> | undefined
  await vm.machine.startIncoming(socketPath, () => {
    serving = restore?.serve(socketPath)
  })
  vm.disks.begun(vm.machine)
  await serving
  await vm.machine.incomingComplete()
  return vm
}

async function told({ machine, console }: Vm, command: string, rest = '') {
  const id = ++commands
  await machine.type(`${command} ${id} ${rest}\n`)
  const answer = async () => parseCounter(await console()).find(report => report.id === id)
  await expect.poll(answer, { timeout: 20_000 }).toBeDefined()
  return await answer()
}

/** One epoch as an agent takes it. */
async function cut(vm: Vm, { aborted = false } = {}): Promise<{ image: ImageManifest; ram: Buffer }> {
  const { machine, worker, disks } = vm
  const { tracking } = machine
  if (!tracking) throw new Error('RAM is not tracked')
  const socketPath = join(folder, `cut${++epoch}`)
  const options = { generation, epoch, socketPath, holders: HOLDERS, ramPath: tracking.ramPath }
  const capture = await worker.capture(options)
  await capture.copy(await tracking.changed())
  await machine.prepareCut()
  let ram: Buffer = Buffer.alloc(0)
  const { streamed, layers } = await machine.cut(socketPath, async () => {
    await capture.copyLast(await tracking.changed())
    ram = readFileSync(tracking.ramPath)
  })
  const [image] = await Promise.all([capture.finish(frameLog(), disks.cutTo(epoch, layers)), streamed])
  if (aborted) worker.abort(epoch)
  else {
    worker.commit(epoch)
    disks.committed(epoch, machine)
  }
  return { image, ram }
}

/** The disks of an image, read by somebody else. */
async function disksOfImage(image: ImageManifest): Promise<Buffer[]> {
  const worker = await openWorker()
  const { disks } = await worker.restore(image)
  const all = await Promise.all(
    disks.map(async disk => {
      const pieces: Uint8Array[] = []
      for (let at = 0; at < disk.bytes; at += MIB) pieces.push(await disk.read(at, Math.min(MIB, disk.bytes - at)))
      return Buffer.concat(pieces)
    })
  )
  await worker.close()
  return all
}

async function expectDisksAsRam({ image, ram }: { image: ImageManifest; ram: Buffer }): Promise<void> {
  const [first, second] = (await disksOfImage(image)) as [Buffer, Buffer]
  const path = join(folder, 'ext4')
  const [highest, highestOfSecond] = [highestOf(fileIn(first, path, '/ring')), highestOf(second)]
  const counter = counterInRam(ram)
  expect(counter.synced).toBeLessThanOrEqual(highestOfSecond)
  expect(highestOfSecond).toBeLessThanOrEqual(highest)
  expect(highest).toBeLessThanOrEqual(counter.ram)
  expect(fileIn(first, path, '/big').equals(readFileSync(join(folder, 'files/big')))).toBe(true)
}

it('images hold the disks as they were at the cut, whatever epochs come to nothing, and through restores', {
  timeout: 240_000
}, async () => {
  let vm = await booted()
  await told(vm, 'write', '300')
  for (let n = 0; n < 5; n++) {
    await sleep(150)
    const taken = await cut(vm, { aborted: n % 2 === 0 })
    await expectDisksAsRam(taken)
    // Its first committed image holds the base, too; those after it only what was written.
    if (n > 1) expect(taken.image.stats.bytesData).toBeLessThan(12 * MIB)
  }
  for (let n = 0; n < 2; n++) {
    const { image } = await cut(vm)
    await vm.machine.destroy()
    vm = await resumed(image)
    expect(await told(vm, 'check')).toMatchObject({ wrong: 0 })
    await expectDisksAsRam(await cut(vm))
    await vm.machine.disks.here
    await told(vm, 'drop')
    expect(await told(vm, 'cache', '/disk/big')).toMatchObject({ pages: (6 * MIB) / 4096 })
    expect(await told(vm, 'check')).toMatchObject({ wrong: 0 })
    await expectDisksAsRam(await cut(vm))
  }
})
