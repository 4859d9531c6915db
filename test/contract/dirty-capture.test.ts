/**
 * Dirty capture against real QEMU: at every cut the image is RAM byte for byte, while the guest writes pages at random;
 * also after an epoch that came to nothing at any of its steps, after a restore, and after the tracker has died.
 */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { frameLog } from '../unit/frame-logs.ts'
import type { VmFacts } from '../../node/image/facts.ts'
import { createImageWorker } from '../../node/image/image-worker.ts'
import { MAX_STREAMS } from '../../node/image/stream-choice.ts'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import type { Hypervisor, ImageManifest, ImageWorker, Machine } from '../../node/ports.ts'
import type { VmSpec } from '../../protocols/group.ts'
import { bankVm, buildGuest } from '../guest/build.ts'
import { parseConsole } from '../guest/console.ts'
import { MemoryCluster, quietLog } from '../unit/image/support.ts'
import { ramOfImage } from './image-ram.ts'
import { clock, memoryLog } from './real-clock.ts'

const MEMORY_MIB = 128
const HOLDERS = ['a', 'b', 'c', 'd', 'e']
const DIRTY_PAGES_PER_SECOND = 3_000

interface Vm {
  readonly machine: Machine
  readonly worker: ImageWorker
  readonly name: string
  console(): Promise<string>
}

/** Where an epoch is given up. */
type GivenUp = 'after its first round' | 'in its pause' | 'when it was durable'

let folder: string
let hypervisor: Hypervisor
let spec: VmSpec
let facts: VmFacts
const log = memoryLog()
const cluster = new MemoryCluster()
const vms: Vm[] = []
const servers: Server[] = []
let epoch = 0

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dc-'))
  const dirty = { dirtyPagesPerSecond: DIRTY_PAGES_PER_SECOND, dirtyMiB: 24 }
  spec = bankVm(await buildGuest(), { index: 1, total: 1, memoryMiB: MEMORY_MIB, ...dirty })
  const settings = {
    qemu: 'qemu-system-x86_64',
    accel: 'auto',
    capture: 'dirty',
    ramDir: '/dev/shm',
    trialMs: 5_000
  } as const
  hypervisor = await createQemuHypervisor({ settings, peer: `dirty-${process.pid}`, runDir: folder, log, clock })
  facts = {
    group: 'bank',
    vm: spec.id,
    memoryMiB: MEMORY_MIB,
    accel: hypervisor.accel,
    key: new Uint8Array(32).fill(9),
    shape: { k: 3, m: 2, symbolBytes: 65_536 },
    disks: []
  }
}, 240_000)

afterEach(async () => {
  for (const vm of vms.splice(0)) {
    await vm.machine.destroy()
    await vm.worker.close()
  }
})

afterAll(async () => {
  for (const server of servers) server.close()
  await rm(folder, { recursive: true, force: true })
})

async function define(name: string): Promise<Vm> {
  const [nicPath, consolePath] = [join(folder, `${name}.nic`), join(folder, `${name}.log`)]
  await writeFile(consolePath, '')
  const server = createServer(socket => socket.resume().on('error', () => {}))
  servers.push(server)
  await new Promise<void>(resolve => server.listen(nicPath, resolve))
  const machine = hypervisor.define({ spec, ends: [{ kind: 'stream', path: nicPath }], consolePath, onExit() {} })
  const worker = await createImageWorker({ ...facts, cluster, log: quietLog })
  const vm = { machine, worker, name, console: () => readFile(consolePath, 'latin1') }
  vms.push(vm)
  return vm
}

async function booted(name: string): Promise<Vm> {
  const vm = await define(name)
  await vm.machine.start()
  await expect.poll(async () => parseConsole(await vm.console()).length, { timeout: 90_000 }).toBeGreaterThan(0)
  return vm
}

/** The VM runs: it prints one more report than it has. */
async function goesOn(vm: Vm): Promise<void> {
  const before = parseConsole(await vm.console()).length
  await expect.poll(async () => parseConsole(await vm.console()).length, { timeout: 30_000 }).toBeGreaterThan(before)
}

/** One epoch as an agent takes it, and RAM as it was at the cut. */
async function cut(vm: Vm, givenUp?: GivenUp): Promise<{ image: ImageManifest; ram: Buffer; pauseMs: number }> {
  const { machine, worker } = vm
  const { tracking } = machine
  if (!tracking) throw new Error('RAM is not tracked')
  const socketPath = join(folder, `${vm.name}.cut${++epoch}`)
  const options = { generation: 1, epoch, socketPath, holders: HOLDERS, ramPath: tracking.ramPath }
  const capture = await worker.capture(options)
  for (let round = 0; round < 2; round++) {
    await capture.copy(await tracking.changed())
    if (givenUp === 'after its first round') await capture.cancel()
  }
  let ram: Buffer = Buffer.alloc(0)
  const { streamed, pauseMs } = await machine.cut(socketPath, async () => {
    await capture.copyLast(await tracking.changed())
    ram = await readFile(tracking.ramPath)
    if (givenUp === 'in its pause') throw new Error('given up')
  })
  const [image] = await Promise.all([capture.finish(frameLog()), streamed])
  if (givenUp === 'when it was durable') worker.abort(epoch)
  else worker.commit(epoch)
  return { image, ram, pauseMs }
}

async function cutInVain(vm: Vm, where: GivenUp): Promise<void> {
  if (where === 'when it was durable') await cut(vm, where)
  else await expect(cut(vm, where)).rejects.toThrow()
  vm.worker.abort(epoch)
}

async function expectImageIsRam({ image, ram }: { image: ImageManifest; ram: Buffer }): Promise<void> {
  const captured = await ramOfImage(facts, image, cluster)
  expect(captured.length).toBe(ram.length)
  const wrong: number[] = []
  for (let at = 0; at < ram.length; at += 4096) {
    if (ram.compare(captured, at, at + 4096, at, at + 4096) !== 0) wrong.push(at / 4096)
  }
  expect(wrong).toEqual([])
}

async function resumed(name: string, image: ImageManifest): Promise<Vm> {
  const vm = await define(name)
  const restore = await vm.worker.restore(image)
  const socketPath = join(folder, `${name}.in`)
  let serving: Promise<unknown> | undefined
  await vm.machine.startIncoming(socketPath, () => {
    serving = restore.serve(socketPath)
  })
  expect(vm.machine.tracking).toBeUndefined()
  await serving
  await vm.machine.incomingComplete()
  return vm
}

test('an image is RAM byte for byte at each cut, whatever epochs come to nothing, and through restores', {
  timeout: 240_000
}, async () => {
  let vm = await booted('first')
  const first = await cut(vm)
  await expectImageIsRam(first)
  for (const where of ['after its first round', 'in its pause', 'when it was durable'] as const) {
    await sleep(300)
    await cutInVain(vm, where)
    const next = await cut(vm)
    await expectImageIsRam(next)
    expect(next.image.stats.pagesChanged).toBeLessThan(first.image.stats.pagesChanged)
  }
  for (const name of ['second', 'third']) {
    const last = await cut(vm)
    await vm.machine.destroy()
    vm = await resumed(name, last.image)
    await goesOn(vm)
    const next = await cut(vm)
    await expectImageIsRam(next)
    expect(next.image.stats.pagesChanged).toBeLessThan(last.image.stats.pagesNonZero / 2)
    await sleep(200)
    await expectImageIsRam(await cut(vm))
  }
  // More epochs than an image may lean on streams: pages of retired streams are copied although nobody wrote them.
  for (let n = 0; n < 10; n++) {
    const { image, ram } = await cut(vm)
    expect(image.streams.length).toBeLessThanOrEqual(MAX_STREAMS)
    if (n % 3 === 0) await expectImageIsRam({ image, ram })
  }
  await goesOn(vm)
})

test('where the tracker dies the VM goes on, and is cut by background snapshots', { timeout: 120_000 }, async () => {
  const vm = await booted('untracked')
  await expectImageIsRam(await cut(vm))
  const { tracking } = vm.machine
  for (const pid of await trackers()) process.kill(pid, 'SIGKILL')
  await expect(tracking?.changed()).rejects.toMatchObject({ code: 'HYPERVISOR_TRACKING' })
  expect(vm.machine.tracking).toBeUndefined()
  expect(log.lines.filter(line => line.message.includes('background snapshots'))).toHaveLength(1)
  const socketPath = join(folder, 'portable')
  const capture = await vm.worker.capture({ generation: 1, epoch: ++epoch, socketPath, holders: HOLDERS })
  let ram: Buffer = Buffer.alloc(0)
  const { streamed } = await vm.machine.cut(socketPath, async () => {
    ram = await readFile(tracking?.ramPath ?? '')
  })
  const [image] = await Promise.all([capture.finish(frameLog()), streamed])
  await expectImageIsRam({ image, ram })
  await goesOn(vm)
})

test('nothing is left in the RAM folder while a VM runs, and no tracker after it', { timeout: 90_000 }, async () => {
  const vm = await define('tidy')
  await vm.machine.start()
  expect((await readdir('/dev/shm')).filter(name => name.startsWith(`diapause-${process.pid}-`))).toEqual([])
  expect(await trackers()).toHaveLength(1)
  await vm.machine.destroy()
  await expect.poll(trackers).toEqual([])
})

/** Those that this process has started. */
async function trackers(): Promise<number[]> {
  const children = await readFile(`/proc/${process.pid}/task/${process.pid}/children`, 'utf8')
  const all = children.trim().split(' ').filter(Boolean).map(Number)
  const names = await Promise.all(all.map(pid => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')))
  return all.filter((_, i) => /tracker\0serve\0/.test(names[i] ?? ''))
}
