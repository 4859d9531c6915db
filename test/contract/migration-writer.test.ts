/**
 * What is written of a VM, loaded by a QEMU that knows nothing of diapause: it has every byte that was written, and the
 * guest goes on. A stream that QEMU wrote itself, read and written here, is loaded the same way.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { runningDevices } from '../../node/hypervisor/device-sections.ts'
import {
  type MachineState,
  migrationHead,
  migrationTail,
  PAGE_BYTES,
  ramPages,
  SnapshotParser
} from '../../node/hypervisor/migration-stream.ts'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import { RAM_FILE, stockScript } from '../../node/hypervisor/stock-command.ts'
import type { VmSpec } from '../../protocols/group.ts'
import { bankVm, buildGuest } from '../guest/build.ts'
import { type BankReport, parseConsole } from '../guest/console.ts'
import { plug, receive } from './hypervisor-support.ts'
import { clock, memoryLog } from './real-clock.ts'
import { StockQemu } from './stock-qemu.ts'

let folder: string
let spec: VmSpec
let accel: 'kvm' | 'tcg'
/** As QEMU wrote it of the running VM, and the last that the VM had said by then. */
let captured: Buffer
let said: BankReport
const running: StockQemu[] = []

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mw-'))
  const devices = { cpus: 2, guestAgent: {} }
  spec = { ...bankVm(await buildGuest(), { index: 1, total: 1, memoryMiB: 128 }), ...devices }
  const settings = {
    qemu: 'qemu-system-x86_64',
    accel: 'auto',
    capture: 'portable',
    ramDir: '',
    trialMs: 5_000
  } as const
  const peer = `writer-${process.pid}`
  const hypervisor = await createQemuHypervisor({ settings, peer, runDir: folder, log: memoryLog(), clock })
  accel = hypervisor.accel
  const { ends, close } = await plug(join(folder, 'nic'))
  const consolePath = join(folder, 'console')
  await writeFile(consolePath, '')
  const machine = hypervisor.define({ spec, ends, consolePath, onExit() {} })
  await machine.start()
  await report(consolePath)
  const receiver = await receive(join(folder, 'cut'))
  const { streamed } = await machine.cut(join(folder, 'cut'), async () => void (said = await report(consolePath)))
  await streamed
  captured = await receiver.bytes
  await machine.destroy()
  await receiver.close()
  await close()
}, 240_000)
afterAll(async () => {
  for (const qemu of running) await qemu.end()
  await rm(folder, { recursive: true, force: true })
})

/** The last that the VM has said, when it has said something; `after`: of a time later than that. */
async function report(consolePath: string, after = 0): Promise<BankReport> {
  for (;;) {
    const last = parseConsole(await readFile(consolePath, 'latin1').catch(() => '')).at(-1)
    if (last !== undefined && last.uptimeMs > after) return last
    await sleep(50)
  }
}

interface Image {
  readonly machine: MachineState
  /** Block → offset → content, undefined for zeros. */
  readonly pages: Map<string, Map<number, Buffer | undefined>>
}

function read(stream: Buffer): Image {
  const pages: Image['pages'] = new Map()
  const names: string[] = []
  const parser = new SnapshotParser({
    blocks: blocks => {
      for (const { name } of blocks) {
        names.push(name)
        pages.set(name, new Map())
      }
    },
    page: (block, offset, bytes) => void pages.get(names[block] ?? '')?.set(offset, bytes && Buffer.from(bytes))
  })
  parser.push(stream)
  return { machine: parser.end(), pages }
}

/** `perSection` pages in each section, block after block. */
function write({ machine, pages }: Image, perSection: number): Buffer {
  const parts = [migrationHead(machine)]
  for (const [block, ofBlock] of pages) {
    const list = [...ofBlock].map(([offset, bytes]) => ({ offset, bytes }))
    for (let at = 0; at < list.length; at += perSection) {
      parts.push(ramPages(machine.ramId, block, list.slice(at, at + perSection)))
    }
  }
  return Buffer.concat([...parts, migrationTail(machine.ramId, machine.devices)])
}

let exports = 0

/** What `diapause export` makes; the script starts it. */
async function exported(stream: Buffer): Promise<{ script: string; consoleFile: string; saved: string }> {
  const dir = join(folder, `export ${++exports}`)
  await mkdir(dir)
  const script = join(dir, 'run.sh')
  await writeFile(script, stockScript({ accel, spec, title: 'a test' }))
  await writeFile(join(dir, RAM_FILE), stream)
  return { script, consoleFile: join(dir, 'console'), saved: join(folder, `saved${exports}`) }
}

function start(script: string, consoleFile: string, ...args: string[]): StockQemu {
  const qemu = new StockQemu(script, consoleFile, args)
  running.push(qemu)
  return qemu
}

/** Pages of `a` that `b` has otherwise, or not. */
const differences = (a: Image, b: Image): string[] =>
  [...a.pages].flatMap(([block, pages]) =>
    [...pages].flatMap(([offset, bytes]) => {
      const zeros = Buffer.alloc(PAGE_BYTES)
      const same = (bytes ?? zeros).equals(b.pages.get(block)?.get(offset) ?? zeros)
      return same ? [] : [`${block} at ${offset}`]
    })
  )

test('a stock QEMU that loads what is written has every byte of it, and its guest goes on', async () => {
  const image = read(captured)
  const { script, consoleFile, saved } = await exported(write(image, 300))
  const qemu = start(script, consoleFile, '-S')
  expect(await qemu.loaded()).toBe('paused')
  await qemu.save(saved)
  const again = read(await readFile(saved))
  expect(differences(image, again)).toEqual([])
  expect(again.machine.blocks).toEqual(image.machine.blocks)
  expect(Buffer.from(again.machine.config).equals(image.machine.config)).toBe(true)
  await qemu.command('cont')
  const later = await report(consoleFile, said.uptimeMs)
  expect(later).toMatchObject({ nonce: said.nonce, money: said.money })
  expect(later.uptimeMs).toBeLessThan(said.uptimeMs + 60_000)
  await qemu.end()

  // QEMU's own stream of that VM, which stood still: what is written of it is loaded as the same state.
  const second = await exported(write(again, 1_000))
  const copy = start(second.script, second.consoleFile, '-S')
  await copy.loaded()
  await copy.save(second.saved)
  const twice = read(await readFile(second.saved))
  expect(differences(again, twice)).toEqual([])
  // Not byte for byte: QEMU tells by its own clock when timers are due.
  expect(twice.machine.devices.length).toBe(again.machine.devices.length)
  await copy.end()
}, 120_000)

test('the script starts a VM that runs at once, also where its kernel is not to be had', async () => {
  const elsewhere = { ...spec, kernel: "/nowhere/it's here", initrd: '/nowhere/initrd' }
  const image = read(captured)
  const machine = { ...image.machine, devices: runningDevices(image.machine.devices) }
  const { script, consoleFile } = await exported(write({ ...image, machine }, 64))
  await writeFile(script, stockScript({ accel, spec: elsewhere, title: 'a\nrm -rf test' }))
  const qemu = start(script, consoleFile)
  expect(await qemu.loaded()).toBe('running')
  expect(await report(consoleFile, said.uptimeMs)).toMatchObject({ nonce: said.nonce })
  await qemu.end()
}, 60_000)
