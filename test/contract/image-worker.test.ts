/** The data plane against real QEMU, in both ways of capture: a VM that runs is captured twice, killed, resumed from shards, and captured again. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import { createImageWorker } from '../../node/image/image-worker.ts'
import type { Hypervisor, ImageManifest, ImageWorker, Machine } from '../../node/ports.ts'
import type { VmSpec } from '../../protocols/group.ts'
import { bankVm, buildGuest } from '../guest/build.ts'
import { type BankReport, parseConsole } from '../guest/console.ts'
import { allPieces, frameLog } from '../unit/frame-logs.ts'
import { MemoryCluster, quietLog, storedAndRead } from '../unit/image/support.ts'
import { clock } from './real-clock.ts'

const MEMORY_MIB = 128
const HOLDERS = ['a', 'b', 'c', 'd', 'e']

let folder: string
let hypervisor: Hypervisor
let hypervisors: Record<Hypervisor['capture'], Hypervisor>
let spec: VmSpec
const machines: Machine[] = []
const servers: Server[] = []
const workers: ImageWorker[] = []
let cluster = new MemoryCluster()

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'im-'))
  spec = bankVm(await buildGuest(), { index: 1, total: 1, memoryMiB: MEMORY_MIB })
  const make = (capture: Hypervisor['capture']) => {
    const settings = {
      qemu: 'qemu-system-x86_64',
      accel: 'auto',
      capture,
      ramDir: '/dev/shm',
      trialMs: 5_000
    } as const
    const peer = `image-${process.pid}`
    return createQemuHypervisor({ settings, peer, runDir: folder, log: quietLog, clock })
  }
  hypervisors = { portable: await make('portable'), dirty: await make('dirty') }
}, 240_000)

afterAll(async () => {
  await Promise.all(machines.map(machine => machine.destroy()))
  await Promise.all(workers.map(worker => worker.close()))
  for (const server of servers) server.close()
  await rm(folder, { recursive: true, force: true })
})

async function define(what: string): Promise<{ machine: Machine; reports(): Promise<BankReport[]> }> {
  const name = `${what}${machines.length}`
  const [nicPath, consolePath] = [join(folder, `${name}.nic`), join(folder, `${name}.log`)]
  await writeFile(consolePath, '')
  const server = createServer(socket => socket.resume().on('error', () => {}))
  servers.push(server)
  await new Promise<void>(resolve => server.listen(nicPath, resolve))
  const machine = hypervisor.define({ spec, ends: [{ kind: 'stream', path: nicPath }], consolePath, onExit() {} })
  machines.push(machine)
  return { machine, reports: async () => parseConsole(await readFile(consolePath, 'latin1')) }
}

async function newWorker(): Promise<ImageWorker> {
  const worker = await createImageWorker({
    group: 'bank',
    vm: spec.id,
    memoryMiB: MEMORY_MIB,
    accel: hypervisor.accel,
    key: new Uint8Array(32).fill(9),
    shape: { k: 3, m: 2, symbolBytes: 65_536 },
    disks: [],
    cluster,
    log: quietLog
  })
  workers.push(worker)
  return worker
}

async function cut(machine: Machine, worker: ImageWorker, generation: number, epoch: number): Promise<ImageManifest> {
  const socketPath = join(folder, `cut${epoch}`)
  const { tracking } = machine
  const ram = tracking && { ramPath: tracking.ramPath }
  const capture = await worker.capture({ generation, epoch, socketPath, holders: HOLDERS, ...ram })
  if (tracking) await capture.copy(await tracking.changed())
  const { streamed } = await machine.cut(socketPath, async () => {
    if (tracking) await capture.copyLast(await tracking.changed())
  })
  const [image] = await Promise.all([capture.finish(frameLog([Buffer.from('a frame')])), streamed])
  worker.commit(epoch)
  return await storedAndRead(image)
}

async function until<T>(what: string, probe: () => Promise<T | undefined>): Promise<T> {
  for (let tries = 0; tries < 600; tries++) {
    const value = await probe()
    if (value !== undefined) return value
    await sleep(100)
  }
  throw new Error(`waited in vain until ${what}`)
}

test.each([
  ['portable', 'portable'],
  ['dirty', 'dirty'],
  ['dirty', 'portable'],
  ['portable', 'dirty']
] as const)(
  'a VM that runs is captured (%s) twice, killed, resumed from its shards and captured (%s) again',
  async (...ways) => {
    cluster = new MemoryCluster()
    hypervisor = hypervisors[ways[0]]
    const first = await define('first')
    const source = await newWorker()
    await first.machine.start()
    const booted = await until('the bank is open', async () => (await first.reports()).at(-1))
    const one = await cut(first.machine, source, 1, 1)
    const two = await cut(first.machine, source, 1, 2)
    const before = (await first.reports()).at(-1)
    await first.machine.destroy()

    expect(one.stats.pages).toBe(MEMORY_MIB * 256)
    expect(one.stats.pagesChanged).toBe(one.stats.pagesNonZero)
    expect(two.stats.pagesChanged).toBeLessThan(one.stats.pagesChanged / 4)
    expect(two.stats.bytesData).toBeLessThan(one.stats.bytesData / 2)
    expect(one.stats.bytesData).toBeLessThan(one.stats.bytesRaw)

    hypervisor = hypervisors[ways[1]]
    cluster.lose(1)
    cluster.lose(3)
    const second = await define('second')
    const target = await newWorker()
    const restore = await target.restore(two)
    expect((await allPieces(restore.frames)).map(String)).toEqual(['a frame'])
    const socketPath = join(folder, 'incoming')
    let serving: ReturnType<typeof restore.serve> | undefined
    await second.machine.startIncoming(socketPath, () => {
      serving = restore.serve(socketPath)
    })
    const counts = await serving
    await second.machine.incomingComplete()
    expect((counts?.pagesFaulted ?? 0) + (counts?.pagesPushed ?? 0)).toBe(two.stats.pages)

    const after = await until('the bank goes on', async () => (await second.reports()).at(-1))
    expect(after.nonce).toBe(booted.nonce)
    expect(after.uptimeMs).toBeGreaterThan(booted.uptimeMs)
    expect(before?.money).toBe(after.money)

    cluster.findAll()
    const three = await cut(second.machine, target, 2, 3)
    expect(three.stats.pagesChanged).toBeLessThan(one.stats.pagesChanged / 4)
    expect(three.streams.map(stream => stream.stream)).toContain('bank/vm1/1/1')
    await until('it goes on after its cut', async () => {
      const latest = (await second.reports()).at(-1)
      return latest && latest.uptimeMs > after.uptimeMs ? latest : undefined
    })
  }
)
