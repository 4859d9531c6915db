/**
 * Disks against real QEMU, in both ways of capture: what is frozen at a cut is what the guest had written by then, on all
 * disks at once and at the moment of its RAM; layers are merged while it runs, and the chain stays short.
 */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, fstatSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, writeFileSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { BLOCK_BYTES, qcow2Blocks } from '../../node/hypervisor/qcow2.ts'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import type { DiskFile, Machine } from '../../node/ports.ts'
import { disksOf, type DiskSpec, type VmSpec } from '../../protocols/group.ts'
import { buildGuest } from '../guest/build.ts'
import { counterInRam, counterVm, fileIn, highestOf, makeCounterDisk, parseCounter } from '../guest/counter.ts'
import { receive } from './hypervisor-support.ts'
import { clock, memoryLog } from './real-clock.ts'

const MIB = 1 << 20
const SIZES_MIB = [64, 4] as const
const BOOT_MS = 60_000

let folder: string
let spec: VmSpec
let base: Buffer
const machines: Machine[] = []

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'disks-'))
  mkdirSync(join(folder, 'files'))
  writeFileSync(join(folder, 'files/big'), randomBytes(3 * MIB))
  const path = join(folder, 'base.raw')
  await makeCounterDisk(path, SIZES_MIB[0], join(folder, 'files'))
  base = readFileSync(path)
  const disks: DiskSpec[] = [{ sizeMiB: SIZES_MIB[0], base: { path, format: 'raw' } }, { sizeMiB: SIZES_MIB[1] }]
  spec = counterVm(await buildGuest(), { memoryMiB: 96, disks, intervalUs: 2_000 })
}, 240_000)

afterEach(async () => {
  for (const machine of machines.splice(0)) await machine.destroy()
})

afterAll(() => rm(folder, { recursive: true, force: true }))

interface Counting {
  readonly machine: Machine
  readonly layers: string
  readonly ended: string[]
  console(): Promise<string>
}

async function counting(capture: 'dirty' | 'portable', name: string, vm = spec): Promise<Counting> {
  const runDir = join(folder, capture)
  const settings = { qemu: 'qemu-system-x86_64', accel: 'auto', capture, ramDir: '/dev/shm', trialMs: 5_000 } as const
  const peer = `disks-${process.pid}`
  const hypervisor = await createQemuHypervisor({ settings, peer, runDir, log: memoryLog(), clock })
  const [consolePath, layers] = [join(folder, `${name}.log`), join(folder, `${name}.layers`)]
  await writeFile(consolePath, '')
  const ended: string[] = []
  const disks = { folder: layers, starts: disksOf(vm).map(() => ({ kind: 'new' }) as const) }
  const machine = hypervisor.define({ spec: vm, ends: [], consolePath, disks, onExit: why => ended.push(why) })
  machines.push(machine)
  await machine.start()
  const console = () => readFile(consolePath, 'utf8')
  await expect.poll(async () => parseCounter(await console()).length, { timeout: BOOT_MS }).toBeGreaterThan(0)
  return { machine, layers, ended, console }
}

let commands = 0

async function told({ machine, console }: Counting, command: string, rest = '') {
  const id = ++commands
  await machine.type(`${command} ${id} ${rest}\n`)
  const answer = async () => parseCounter(await console()).find(report => report.id === id)
  await expect.poll(answer, { timeout: 20_000 }).toBeDefined()
  return await answer()
}

/** Writes the blocks of a layer into its disk. */
function apply(disk: Buffer, { path, format }: DiskFile): void {
  expect(format).toBe('qcow2')
  const fd = openSync(path, 'r')
  try {
    const read = (offset: number, length: number) => {
      const bytes = Buffer.alloc(length)
      expect(readSync(fd, bytes, 0, length, offset)).toBe(length)
      return bytes
    }
    for (const { first, count, bytes } of qcow2Blocks({ bytes: fstatSync(fd).size, read })) {
      disk.set(bytes ?? Buffer.alloc(count * BLOCK_BYTES), first * BLOCK_BYTES)
    }
  } finally {
    closeSync(fd)
  }
}

/** One cut, RAM at that moment where it is to be had, and the layers applied to `disks`. */
async function cut(vm: Counting, disks: readonly Buffer[], name: string, how = { stays: false }) {
  const path = join(folder, name)
  const stream = await receive(path)
  const { tracking } = vm.machine
  await vm.machine.prepareCut()
  let ram: Buffer | undefined
  const { streamed, layers, pauseMs } = await vm.machine.cut(
    path,
    async () => {
      if (tracking) ram = readFileSync(tracking.ramPath)
    },
    how
  )
  for (const layer of layers) apply(disks[layer.disk] as Buffer, layer)
  await streamed
  await stream.close()
  return { layers, ram, pauseMs }
}

/** What QEMU's own tools make of a chain of a VM that stands still, without the layer that is written. */
function chainAtRest(layers: string, disk: number): Buffer {
  const made = (name: string): number => Number(/\.(\d+)$/.exec(name)?.[1] ?? 0) // local has no number
  const names = readdirSync(layers).filter(name => name.startsWith(`d${disk}.`))
  const frozen = names.sort((a, b) => made(a) - made(b)).slice(0, -1)
  const bottom = disksOf(spec)[disk]?.base
  let node: unknown = bottom ? { driver: 'raw', file: { driver: 'file', filename: bottom.path } } : null
  for (const name of frozen)
    node = { driver: 'qcow2', file: { driver: 'file', filename: join(layers, name) }, backing: node }
  const raw = join(folder, `rest-${disk}`)
  execFileSync('qemu-img', ['convert', '-U', '-O', 'raw', `json:${JSON.stringify(node)}`, raw])
  return readFileSync(raw)
}

const freshDisks = (): Buffer[] => [Buffer.from(base), Buffer.alloc(SIZES_MIB[1] * MIB)]

describe.each(['portable', 'dirty'] as const)('disks with %s capture', capture => {
  it('are frozen together, at the moment of RAM; their layers are merged while the VM runs', {
    timeout: 4 * BOOT_MS
  }, async () => {
    const vm = await counting(capture, `cuts-${capture}`)
    const disks = freshDisks()
    await told(vm, 'write', '400')
    const pauses: number[] = []
    for (let n = 0; n < 10; n++) {
      await sleep(150)
      const { layers, ram, pauseMs } = await cut(vm, disks, `${capture}.${n}`)
      pauses.push(pauseMs)
      const [first, second] = [
        highestOf(fileIn(disks[0] as Buffer, join(folder, 'ext4'), '/ring')),
        highestOf(disks[1] as Buffer)
      ]
      expect([first, first - 1]).toContain(second)
      expect(second).toBeGreaterThan(0)
      if (ram) {
        const counter = counterInRam(ram)
        expect(counter.synced).toBeLessThanOrEqual(second)
        expect(first).toBeLessThanOrEqual(counter.ram)
      }
      // Every third epoch comes to nothing: its layers stay, and come again.
      if (n % 3 !== 2) vm.machine.disks.release(layers)
      else expect(new Set(layers.map(({ path }) => path)).size).toBeGreaterThanOrEqual(2)
    }
    // Of each disk: local, one that is frozen, one that is written, and maybe the next.
    await expect.poll(() => readdirSync(vm.layers).length, { timeout: 10_000 }).toBeLessThanOrEqual(8)
    const last = await cut(vm, disks, `${capture}.last`)
    vm.machine.disks.release(last.layers)
    await told(vm, 'drop')
    expect(await told(vm, 'check')).toMatchObject({ wrong: 0 })
    expect(vm.ended).toEqual([])
  })

  it('hold what QEMU itself reads through the chain', { timeout: 2 * BOOT_MS }, async () => {
    const vm = await counting(capture, `chain-${capture}`)
    const disks = freshDisks()
    await told(vm, 'write', '400')
    for (let n = 0; n < 4; n++) {
      await sleep(200)
      const { layers } = await cut(vm, disks, `${capture}.chain${n}`)
      if (n === 1) vm.machine.disks.release(layers)
    }
    await vm.machine.stop()
    await expect.poll(() => readdirSync(vm.layers).length, { timeout: 10_000 }).toBe(8)
    for (const [index, disk] of disks.entries()) expect(chainAtRest(vm.layers, index).equals(disk)).toBe(true)
  })

  it('become one layer where epochs come to nothing, and nothing of them is lost', {
    timeout: 2 * BOOT_MS
  }, async () => {
    const vm = await counting(capture, `void-${capture}`)
    await told(vm, 'write', '400')
    const disks = freshDisks()
    for (let n = 0; n < 3; n++) {
      for (let i = 0; i < 8; i++) await cut(vm, freshDisks(), `${capture}.void${n}.${i}`)
      vm.machine.disks.join()
      if (n > 0) continue // the next cut breaks it off
      // Of each disk: local, one of all, the one that is written, and maybe the next.
      await expect.poll(() => readdirSync(vm.layers).length, { timeout: 10_000 }).toBeLessThanOrEqual(8)
    }
    await vm.machine.prepareCut()
    const { layers } = await cut(vm, disks, `${capture}.void`)
    expect(layers.length).toBeGreaterThanOrEqual(4)
    await vm.machine.stop()
    for (const [index, disk] of disks.entries()) expect(chainAtRest(vm.layers, index).equals(disk)).toBe(true)
    await vm.machine.resume()
    vm.machine.disks.release(layers)
    await expect.poll(() => readdirSync(vm.layers).length, { timeout: 10_000 }).toBeLessThanOrEqual(6)
    await told(vm, 'drop')
    expect(await told(vm, 'check')).toMatchObject({ wrong: 0 })
    expect(vm.ended).toEqual([])
  })

  it('are frozen for good where the VM stays as it was cut, and written on where it goes on after all', {
    timeout: 2 * BOOT_MS
  }, async () => {
    const vm = await counting(capture, `stays-${capture}`)
    const disks = freshDisks()
    await told(vm, 'write', '400')
    for (let n = 0; n < 2; n++) {
      await sleep(200)
      const before = highestOf(disks[1] as Buffer)
      await cut(vm, disks, `${capture}.stays${n}`, { stays: true })
      const cutAt = highestOf(disks[1] as Buffer)
      expect(cutAt).toBeGreaterThan(before)
      const again = vm.machine.cut(join(folder, `${capture}.none`), async () => {})
      await expect(again).rejects.toMatchObject({ code: 'HYPERVISOR_STATE' })
      await vm.machine.type(`check ${++commands}\n`)
      await sleep(300)
      expect(parseCounter(await vm.console()).some(({ id }) => id === commands)).toBe(false)
      vm.machine.disks.join()
      await vm.machine.resume()
      await expect
        .poll(async () => parseCounter(await vm.console()).some(({ id }) => id === commands), {
          timeout: 20_000
        })
        .toBe(true)
    }
    const { layers } = await cut(vm, disks, `${capture}.goes-on`)
    vm.machine.disks.release(layers)
    await expect.poll(() => readdirSync(vm.layers).length, { timeout: 10_000 }).toBeLessThanOrEqual(8)
    await told(vm, 'drop')
    expect(await told(vm, 'check')).toMatchObject({ wrong: 0 })
    expect(vm.ended).toEqual([])
  })
})
