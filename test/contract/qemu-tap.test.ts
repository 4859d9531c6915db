/**
 * A VM whose NIC is a TAP device, with real QEMU: the device is in a network namespace, where its host speaks with the VM by
 * TCP, and QEMU is started there. Beside it a NIC that ends in a stream, as the same VM knows no difference.
 */
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import type { Hypervisor, Machine, NicEnd } from '../../node/ports.ts'
import { toPacket } from '../../node/switch/ethernet.ts'
import { PacketCutter } from '../../node/switch/packets.ts'
import type { VmSpec } from '../../protocols/group.ts'
import { waitUntil } from '../demo/processes.ts'
import { bankMac, bankVm, buildGuest } from '../guest/build.ts'
import { parseConsole } from '../guest/console.ts'
import { Hosts } from '../hosts/hosts.ts'
import type { PostcopySource } from './hypervisor-contract.ts'
import { arpRequest, receive } from './hypervisor-support.ts'
import { sourceImage } from './postcopy-source.ts'
import { clock, memoryLog } from './real-clock.ts'

const run = promisify(execFile)
const GUEST = '10.9.0.1'
/** Where the guest's bank listens. */
const BANK_PORT = 7000
const ASKER = '52:54:00:00:00:99'
const LIMIT_MS = 60_000

interface Vm {
  readonly machine: Machine
  readonly name: string
  /** Told by the guest, and another after each boot. */
  boot(): Promise<string>
}

describe('a VM with a TAP device as its NIC', () => {
  let hosts: Hosts
  let hypervisor: Hypervisor
  let spec: VmSpec
  let defined = 0
  const tap: NicEnd = { kind: 'tap', device: 'dp0' }
  const cleanUps: (() => unknown)[] = []

  beforeAll(async () => {
    hosts = await Hosts.make(0)
    // As `Taps.make` does, with an address for the host to speak from.
    await there('ip', 'tuntap', 'add', 'dp0', 'mode', 'tap', 'user', String(process.getuid?.() ?? 0))
    await there('ip', 'addr', 'add', '10.9.0.254/24', 'dev', 'dp0')
    await there('ip', 'link', 'set', 'dp0', 'up')
    const qemu = join(hosts.dir, 'qemu')
    await writeFile(qemu, `#!/bin/sh\nexec ${hosts.onSwitch.join(' ')} qemu-system-x86_64 "$@"\n`, { mode: 0o755 })
    // Portable: the library that dirty capture loads into QEMU would act in the shell as well.
    // Into a network namespace goes who may.
    const settings = {
      qemu,
      confined: false,
      accel: 'auto',
      capture: 'portable',
      ramDir: '/dev/shm',
      trialMs: 5_000
    } as const
    const runDir = join(hosts.dir, 'run')
    await mkdir(runDir)
    hypervisor = await createQemuHypervisor({ settings, peer: `tap-${process.pid}`, runDir, log: memoryLog(), clock })
    spec = bankVm(await buildGuest(), { index: 1, total: 1, memoryMiB: 128 })
  }, 240_000)

  afterAll(async () => {
    for (const cleanUp of cleanUps.reverse()) await cleanUp()
    await hosts?.remove()
  })

  function there(...words: string[]): Promise<unknown> {
    const [command, ...args] = [...hosts.onSwitch, ...words]
    return run(command as string, args, { timeout: 10_000 })
  }

  async function define(end: NicEnd): Promise<Vm> {
    const name = join(hosts.dir, `vm${++defined}`)
    const consolePath = `${name}.log`
    await writeFile(consolePath, '')
    const machine = hypervisor.define({ spec, ends: [end], consolePath, onExit() {} })
    cleanUps.push(() => machine.destroy())
    const boot = async (): Promise<string> => {
      await machine.type(`audit ${defined}\n`)
      return parseConsole(await readFile(consolePath, 'latin1')).at(-1)?.nonce ?? ''
    }
    return { machine, name, boot }
  }

  /** Ends the VM; another one, on `end`, goes on from its image. */
  async function resumed({ machine, name }: Vm, end: NicEnd): Promise<Vm> {
    const stream = await receive(`${name}.cut`)
    cleanUps.push(() => stream.close())
    const { streamed } = await machine.cut(`${name}.cut`, async () => {})
    await streamed
    const image = await stream.bytes
    await machine.destroy()
    const next = await define(end)
    let source: PostcopySource | undefined
    await next.machine.startIncoming(`${next.name}.in`, () => {
      source = sourceImage(image, `${next.name}.in`, undefined)
    })
    cleanUps.push(() => source?.close())
    await source?.finish()
    await next.machine.incomingComplete()
    return next
  }

  /** A connection from the host to the guest's bank, through the TAP device. */
  const connects = () =>
    there('bash', '-c', `exec 3<>/dev/tcp/${GUEST}/${BANK_PORT}`).then(
      () => true,
      () => false
    )

  /** A switch that asks whoever is plugged in for its address, and what it is told. */
  async function asking(): Promise<{ end: NicEnd; answers(): readonly string[] }> {
    const path = join(hosts.dir, 'stream')
    const heard: string[] = []
    const server = createServer(socket => {
      const cutter = new PacketCutter()
      socket.on('error', () => {})
      socket.on('data', chunk => cutter.push(chunk, packet => heard.push(Buffer.from(packet).toString('hex', 10, 26))))
      const timer = setInterval(() => socket.write(toPacket(arpRequest(ASKER, GUEST))), 100)
      socket.on('close', () => clearInterval(timer))
    }).listen(path)
    await once(server, 'listening')
    cleanUps.push(() => server.close())
    return { end: { kind: 'stream', path }, answers: () => heard }
  }

  it('is spoken with through the device; its image resumes on a stream, and the image of that on the device again', async () => {
    const first = await define(tap)
    await first.machine.start()
    await expect.poll(first.boot, { timeout: LIMIT_MS }).not.toBe('')
    const boot = await first.boot()
    await expect.poll(connects, { timeout: LIMIT_MS }).toBe(true)

    const { end, answers } = await asking()
    const second = await resumed(first, end)
    // From the guest, by ARP, a reply.
    const reply = `${bankMac(1).replaceAll(':', '')}08060001080006040002`
    expect(await waitUntil(() => answers().includes(reply), LIMIT_MS)).toBe(true)
    expect(await connects()).toBe(false)

    const third = await resumed(second, tap)
    await expect.poll(connects, { timeout: LIMIT_MS }).toBe(true)
    await expect.poll(third.boot, { timeout: LIMIT_MS }).toBe(boot)
  })
})
