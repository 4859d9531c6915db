/**
 * The migration stream against real QEMU, in both ways of capture and with every layout that the driver can start: what is
 * read of a stream is what QEMU's own description and its RAM say, and QEMU takes what is written of it; a QEMU that is given
 * the same stream by itself has the same RAM. 4,608 MiB lie on both sides of the hole below 4 GiB; where RAM is not in the
 * stream its size makes no difference.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { MAIN_BLOCK, type MachineState, PAGE_BYTES, SnapshotParser } from '../../node/hypervisor/migration-stream.ts'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import { contextPages } from '../../node/hypervisor/running-context.ts'
import type { Hypervisor, Machine, MachineOptions } from '../../node/ports.ts'
import type { VmSpec } from '../../protocols/group.ts'
import { type Guest, buildGuest } from '../guest/build.ts'
import { describedSections, expectSameByQemu } from './own-reading.ts'
import { plug, receive } from './hypervisor-support.ts'
import { sourceImage } from './postcopy-source.ts'
import { clock, memoryLog } from './real-clock.ts'

let folder: string
let guest: Guest
const closing: (() => Promise<void>)[] = []

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ms-'))
  guest = await buildGuest()
}, 240_000)
afterAll(async () => {
  for (const close of closing.toReversed()) await close()
  await rm(folder, { recursive: true, force: true })
})

function create(capture: Hypervisor['capture']): Promise<Hypervisor> {
  const settings = { qemu: 'qemu-system-x86_64', accel: 'auto', capture, ramDir: '/dev/shm', trialMs: 5_000 } as const
  const peer = `stream-${process.pid}`
  return createQemuHypervisor({ settings, peer, runDir: folder, log: memoryLog(), clock })
}

/** Boots a kernel, which finds no root and stands still then: any state will do, and 64 MB are enough for it. */
function specOf(nics: number, memoryMiB: number, cpus: number): VmSpec {
  return {
    id: `vm${nics}x${memoryMiB}x${cpus}`,
    cpus,
    nics: Array.from({ length: nics }, (_, i) => ({ mac: `52:54:00:00:01:0${i}`, network: `net${i}` })),
    memoryMiB,
    // The devices by which a guest notices a restore, where RAM is not compared: an id that is loaded is not the one of the image.
    ...(memoryMiB > OWN_READING_MIB && { generationId: true, guestAgent: {} }),
    kernel: guest.kernel,
    initrd: guest.initrd,
    append: ''
  }
}

/** With more RAM than this QEMU's own reading is left out: it would be in memory three times. */
const OWN_READING_MIB = 512

let names = 0

async function define(hypervisor: Hypervisor, spec: VmSpec): Promise<Machine> {
  const name = `m${++names}`
  const plugs = await Promise.all((spec.nics ?? []).map((_, i) => plug(join(folder, `${name}.nic${i}`))))
  const consolePath = join(folder, `${name}.console`)
  await writeFile(consolePath, '')
  const options: MachineOptions = { spec, ends: plugs.flatMap(({ ends }) => [...ends]), consolePath, onExit() {} }
  const machine = hypervisor.define(options)
  closing.push(async () => {
    await machine.destroy()
    for (const { close } of plugs) await close()
  })
  return machine
}

/** One cut of a machine: QEMU's stream and, where it is tracked, its RAM. */
async function cut(machine: Machine): Promise<{ stream: Buffer; ram: Buffer | undefined }> {
  const path = join(folder, `c${++names}`)
  const receiver = await receive(path)
  const { tracking } = machine
  let ram: Buffer | undefined
  const { streamed } = await machine.cut(path, async () => {
    if (tracking) ram = await readFile(tracking.ramPath)
  })
  await streamed
  const stream = await receiver.bytes
  await receiver.close()
  return { stream, ram }
}

interface Read {
  readonly machine: MachineState
  /** Of each block which pages have come, and how often one that is not zero. */
  readonly pages: ReadonlyMap<string, Count>
}

interface Count {
  /** By page: 1 where it has come, in whichever round. */
  readonly seen: Uint8Array
  filled: number
}

/** In chunks as large as `chunkBytes` gives them. */
function read(stream: Buffer, chunkBytes: () => number): Read {
  const counts: Count[] = []
  const parser = new SnapshotParser({
    blocks: blocks =>
      void counts.push(...blocks.map(({ length }) => ({ seen: new Uint8Array(length / PAGE_BYTES), filled: 0 }))),
    page(block, offset, bytes) {
      const count = counts[block] as Count
      count.seen[offset / PAGE_BYTES] = 1
      if (bytes !== undefined) count.filled++
    }
  })
  for (let at = 0; at < stream.length; ) {
    const end = at + chunkBytes()
    parser.push(stream.subarray(at, end))
    at = end
  }
  const machine = parser.end()
  return { machine, pages: new Map(machine.blocks.map(({ name }, i) => [name, counts[i] as Count])) }
}

test.each([
  ['portable', 0, 64, 1],
  ['portable', 1, 64, 2],
  ['portable', 8, 128, 4],
  ['portable', 3, 512, 2],
  ['portable', 2, 4608, 1],
  ['dirty', 0, 64, 4],
  ['dirty', 1, 64, 1],
  ['dirty', 8, 128, 2]
] as const)(
  'a VM (%s) of %i NICs, %i MiB and %i processors is read whole, and QEMU goes on from what is written of it',
  async (...layout) => {
    const [capture, nics, memoryMiB, cpus] = layout
    const spec = specOf(nics, memoryMiB, cpus)
    const hypervisor = await create(capture)
    const source = await define(hypervisor, spec)
    await source.start()
    expect(source.tracking !== undefined).toBe(capture === 'dirty')
    const { stream, ram } = await cut(source)
    await source.destroy()

    let turn = 0
    const { machine, pages } = read(stream, () => 1 + ((turn++ * 7919) % 200_000))
    const whole = read(stream, () => stream.length)
    for (const [name, count] of pages)
      expect(Buffer.compare(count.seen, whole.pages.get(name)?.seen ?? count.seen)).toBe(0)
    expect([...whole.pages.values()].map(({ filled }) => filled)).toEqual(
      [...pages.values()].map(({ filled }) => filled)
    )
    expect(Buffer.from(whole.machine.devices).equals(machine.devices)).toBe(true)
    expect(machine.blocks.find(({ name }) => name === MAIN_BLOCK)?.length).toBe(memoryMiB * 2 ** 20)
    for (const { name, length } of machine.blocks) {
      const absent = capture === 'dirty' && name === MAIN_BLOCK
      const seen = pages.get(name)?.seen ?? new Uint8Array(0)
      expect(
        seen.every(page => page === (absent ? 0 : 1)),
        `${seen.length} of ${length / PAGE_BYTES} pages of ${name}`
      ).toBe(true)
    }
    const devices = Buffer.from(machine.devices).toString('latin1')
    expect(devices.match(/\/virtio-net/g) ?? []).toHaveLength(nics)
    const described = describedSections(stream, machine.devices)
    expect(described.filter(({ name }) => name === 'cpu')).toHaveLength(cpus)
    if (memoryMiB <= OWN_READING_MIB) await expectSameByQemu({ hypervisor, spec, stream, folder, ram })

    const target = await define(hypervisor, spec)
    const incoming = join(folder, `i${++names}`)
    let sending: ReturnType<typeof sourceImage> | undefined
    await target.startIncoming(incoming, () => void (sending = sourceImage(stream, incoming, ram)))
    await sending?.finish()
    await target.incomingComplete()
    const again = read((await cut(target)).stream, () => 1 << 20)
    expect(again.machine.blocks).toEqual(machine.blocks)
    await target.destroy()
    sending?.close()
  },
  120_000
)

test('of a Linux guest that stood still code, stack and tables are found, all in RAM and none empty', async () => {
  const hypervisor = await create('dirty')
  const source = await define(hypervisor, { ...specOf(1, 64, 1), append: 'console=ttyS0' })
  const consolePath = join(folder, `m${names}.console`)
  await source.start()
  await vi.waitUntil(async () => (await readFile(consolePath, 'latin1')).length > 2_000, {
    timeout: 60_000
  })
  const { stream, ram = Buffer.alloc(0) } = await cut(source)
  const pages = contextPages(stream, 64, (at, length) => ram.subarray(at, at + length))
  const empty = Buffer.alloc(PAGE_BYTES)
  const found = pages.filter(page => !ram.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES).equals(empty))
  expect(found.length).toBeGreaterThan(12)
  expect(Math.max(...pages)).toBeLessThan((64 << 20) / PAGE_BYTES)
  await source.destroy()
})
