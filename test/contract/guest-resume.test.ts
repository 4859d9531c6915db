/**
 * What a guest notices when its VM goes back to an image: its clocks, its generation id, and what its agent is told. With
 * Debian's kernel and agent, whose kernel has no driver for generation ids: what is in the guest's memory is looked at instead.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import type { Hypervisor, Machine } from '../../node/ports.ts'
import type { VmSpec } from '../../protocols/group.ts'
import { buildAgentGuest, type GuestClocks, guestClocks } from '../guest/agent.ts'
import { bankAppend } from '../guest/build.ts'
import { plug, receive } from './hypervisor-support.ts'
import { ramOfProcess } from './one-vm.ts'
import { sourceImage } from './postcopy-source.ts'
import { clock, quietLog } from './real-clock.ts'

const MEMORY_MIB = 160
const MAC = '525400d10001'
const AGENT_MS = 60_000
/** So far are the images in the past. Whole seconds are compared, so some of them. */
const GAP_MS = 4_000
const LONG_PAST_SECONDS = 1_000_000_000

interface Vm {
  readonly machine: Machine
  /** What it has sent, each frame behind its length. */
  readonly sent: readonly Buffer[]
  clocks(): Promise<GuestClocks[]>
  /** The first that satisfies; of a resumed VM not the first ones, which may have been half written at the cut. */
  says(seen: (clocks: GuestClocks) => boolean): Promise<GuestClocks>
}

let folder: string
let hypervisor: Hypervisor
let spec: VmSpec
let number = 0
const cleanUps: (() => Promise<void>)[] = []

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gr-'))
  const settings = {
    qemu: 'qemu-system-x86_64',
    accel: 'auto',
    capture: 'auto',
    ramDir: '/dev/shm',
    trialMs: 10_000
  } as const
  hypervisor = await createQemuHypervisor({ settings, peer: `gr-${process.pid}`, runDir: folder, log: quietLog, clock })
  const append = bankAppend({ index: 1, total: 1 })
  spec = { id: 'vm', mac: '52:54:00:d1:00:01', memoryMiB: MEMORY_MIB, ...(await buildAgentGuest()), append }
}, 240_000)

afterAll(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp()
  await rm(folder, { recursive: true, force: true })
})

async function define(changes: Partial<VmSpec>): Promise<Vm> {
  const name = join(folder, `${++number}`)
  const sent: Buffer[] = []
  const nic = await plug(`${name}.nic`, chunk => sent.push(chunk))
  const consolePath = `${name}.log`
  await writeFile(consolePath, '')
  const machine = hypervisor.define({ spec: { ...spec, ...changes }, ends: nic.ends, consolePath, onExit: () => {} })
  cleanUps.push(nic.close, () => machine.destroy())
  const clocks = async () => guestClocks(await readFile(consolePath, 'latin1'))
  const says = async (seen: (said: GuestClocks) => boolean) => {
    for (;;) {
      const said = (await clocks()).slice(2).find(seen)
      if (said !== undefined) return said
      await sleep(50)
    }
  }
  return { machine, clocks, says, sent }
}

/** Boots it, takes an image and ends it. */
async function imageOf(changes: Partial<VmSpec>) {
  const vm = await define(changes)
  await vm.machine.start()
  await vm.says(({ monotonic }) => monotonic > 0)
  const path = join(folder, `${number}.cut`)
  const stream = await receive(path)
  cleanUps.push(() => stream.close())
  let ram: Buffer = Buffer.alloc(0)
  const withoutRam = vm.machine.tracking !== undefined
  const { streamed } = await vm.machine.cut(path, async () => {
    ram = await ramOf(vm.machine)
  })
  await streamed
  const last = (await vm.clocks()).at(-1) as GuestClocks
  await vm.machine.destroy()
  return { changes, bytes: await stream.bytes, ram, withoutRam, last }
}

async function resumed({ changes, bytes, ram, withoutRam }: Awaited<ReturnType<typeof imageOf>>): Promise<Vm> {
  const vm = await define(changes)
  const path = join(folder, `${number}.in`)
  let finish: (() => Promise<void>) | undefined
  await vm.machine.startIncoming(path, () => {
    const source = sourceImage(bytes, path, withoutRam ? ram : undefined)
    cleanUps.push(async () => source.close())
    finish = source.finish
  })
  await finish?.()
  await vm.machine.incomingComplete()
  return vm
}

/** Seconds by which the guest's time is behind its CMOS clock. */
const lag = ({ cmos, real }: GuestClocks): number => cmos - real

const ramOf = ({ pid = 0 }: Machine): Promise<Buffer> => ramOfProcess(pid, MEMORY_MIB)

/**
 * The id as the guest finds it: VGIA of the ACPI table with the OEM id "VMGENID " is the address of a page that has it at byte
 * 40 (docs/specs/vmgenid.txt of QEMU). Undefined where there is no such table.
 */
function generationIdIn(ram: Buffer): string | undefined {
  const oem = ram.indexOf('VMGENID ')
  const name = oem < 0 ? -1 : ram.indexOf(Buffer.from('\x08VGIA\x0c', 'latin1'), oem)
  if (name < 0) return undefined
  const at = ram.readUInt32LE(name + 6) + 40
  return ram.toString('hex', at, at + 16)
}

it('a guest has another generation id after each restore of one image, and none where its VM has no such device', {
  timeout: 120_000
}, async () => {
  const image = await imageOf({ generationId: true })
  const ids = [generationIdIn(image.ram)]
  for (let restore = 0; restore < 2; restore++) {
    const vm = await resumed(image)
    await vm.machine.stop()
    ids.push(generationIdIn(await ramOf(vm.machine)))
    await vm.machine.destroy()
  }
  expect(ids).toEqual(ids.map(() => expect.stringMatching(/^[0-9a-f]{32}$/)))
  expect(new Set([...ids, '0'.repeat(32)]).size).toBe(4)
})

it('a VM that was restored tells where it is: QEMU by RARP, by which switches learn, and a guest with virtio-net by ARP', {
  timeout: 120_000
}, async () => {
  const vm = await resumed(await imageOf({}))
  const hex = () => Buffer.concat(vm.sent).toString('hex')
  const all = `ffffffffffff${MAC}`
  const address = '0a090001'
  // From its MAC address to all: RARP for itself; and ARP, in which who asks and who is asked for are 10.9.0.1.
  await expect.poll(hex, { timeout: AGENT_MS }).toContain(`${all}80350001080006040003${MAC}`)
  const arp = new RegExp(`${all}080600010800060400(01|02)${MAC}${address}.{12}${address}`)
  await expect.poll(hex, { timeout: AGENT_MS }).toMatch(arp)
})

it('an agent in the guest sets its clock after a restore and runs what it is asked to', {
  timeout: 180_000
}, async () => {
  const image = await imageOf({ guestAgent: {} })
  expect(generationIdIn(image.ram)).toBeUndefined()
  await sleep(GAP_MS)
  const { machine, says } = await resumed(image)
  const first = await says(() => true)
  // The gap is in CMOS and not in what the guest takes for the time, nor in its monotonic clock.
  expect(lag(first) - lag(image.last)).toBeGreaterThanOrEqual(GAP_MS / 1000 - 1)
  expect(first.monotonic - image.last.monotonic).toBeLessThan(GAP_MS / 1000)

  await machine.agent?.setTime(() => LONG_PAST_SECONDS * 1000, AGENT_MS)
  const set = await says(({ real }) => real < 1.5 * LONG_PAST_SECONDS)
  expect(set.real).toBeGreaterThanOrEqual(LONG_PAST_SECONDS)
  expect(set.monotonic - first.monotonic).toBeLessThan(LONG_PAST_SECONDS)

  const shell = (script: string) => machine.agent?.run(['/bin/busybox', 'sh', '-c', script], AGENT_MS)
  expect(await shell('echo back > /run/told; exit 7')).toBe(7)
  await says(({ told }) => told === 'back')
  expect(await shell('kill -9 $$')).toBe(-9)
  await expect(machine.agent?.run(['/no/such'], AGENT_MS)).rejects.toMatchObject({
    code: 'GUEST_AGENT_REFUSED',
    message: expect.stringContaining('/no/such')
  })
})

it('a guest that is to see no gap finds none in CMOS either, and one without an agent keeps nobody waiting', {
  timeout: 120_000
}, async () => {
  const image = await imageOf({ clock: 'continue', guestAgent: {}, append: `${spec.append} agent=none` })
  await sleep(GAP_MS)
  const vm = await resumed(image)
  const first = await vm.says(() => true)
  expect(Math.abs(lag(first) - lag(image.last))).toBeLessThanOrEqual(1)
  await expect(vm.machine.agent?.setTime(() => 0, 500)).rejects.toMatchObject({ code: 'GUEST_AGENT_SILENT' })
})
