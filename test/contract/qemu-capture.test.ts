/** Which way of capture the driver chooses, and what it says where the better one is not to be had; VMs held to a way. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { trialCapture } from '../../node/hypervisor/capture-trial.ts'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import { RamFolder, type SharedRam } from '../../node/hypervisor/shared-ram.ts'
import type { MachineOptions } from '../../node/ports.ts'
import { bankVm, buildGuest } from '../guest/build.ts'
import { clock, memoryLog } from './real-clock.ts'

describe('the choice of capture', () => {
  let folder: string
  let log: ReturnType<typeof memoryLog>
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'capture-'))
    log = memoryLog()
  })
  afterEach(() => rm(folder, { recursive: true, force: true }))

  const create = (capture: 'auto' | 'dirty' | 'portable', ramDir: string) => {
    const settings = { qemu: 'qemu-system-x86_64', accel: 'tcg', trialMs: 5_000, capture, ramDir } as const
    return createQemuHypervisor({ settings, peer: 'capture-test', runDir: folder, log, clock })
  }
  const warnings = () => log.lines.filter(line => line.level === 'warn')

  /** A VM of one NIC, and what ends it. */
  async function vm(changes: Partial<MachineOptions['spec']>) {
    const spec = { ...bankVm(await buildGuest(), { index: 1, total: 1, memoryMiB: 64 }), ...changes }
    const nicPath = join(folder, 'nic')
    const nic = createServer(socket => socket.resume().on('error', () => {})).listen(nicPath)
    const ends = [{ kind: 'stream', path: nicPath }] as const
    return { options: { spec, ends, consolePath: join(folder, 'console'), onExit() {} }, close: () => nic.close() }
  }

  it('is dirty where that works, and portable where it is asked for', async () => {
    expect(await create('auto', '/dev/shm')).toMatchObject({ capture: 'dirty', captureWhy: undefined })
    const asked = await create('portable', '/dev/shm')
    expect(asked).toMatchObject({ capture: 'portable', captureWhy: expect.stringContaining('hypervisor.capture') })
    expect(warnings()).toEqual([])
  })

  it('is portable where the folder for RAM is no tmpfs, with one line that says so', async () => {
    expect((await create('auto', '/proc')).capture).toBe('portable')
    expect(warnings()).toMatchObject([{ fields: { why: expect.stringMatching(/proc is no tmpfs/) } }])
  })

  it('tells a person who demands dirty capture why it cannot be', async () => {
    const demanded = create('dirty', '/proc')
    await expect(demanded).rejects.toMatchObject({ name: 'UsageError', code: 'HYPERVISOR_CAPTURE' })
    await expect(demanded).rejects.toThrow(/no tmpfs.*hypervisor\.ramDir/)
  })

  it('is portable for a VM whose RAM does not fit, with one line that says so', async () => {
    const hypervisor = await create('dirty', '/dev/shm')
    const { options, close } = await vm({ memoryMiB: 1 << 20 })
    const machine = hypervisor.define(options)
    // A TiB of RAM: QEMU may or may not start with it, which does not matter here.
    await Promise.allSettled([machine.start()])
    expect(machine.tracking).toBeUndefined()
    expect(warnings()).toMatchObject([{ fields: { why: expect.stringMatching(/has room for \d+ MiB/) } }])
    expect(machine.capture).toMatchObject({ mode: 'portable', why: expect.stringMatching(/has room for/) })
    await machine.destroy()
    close()
  })

  it('asks for room before a VM is started without its RAM in a file, but not for one that is to wait', async () => {
    const hypervisor = await create('dirty', '/dev/shm')
    const asked: number[] = []
    hypervisor.onFull?.(async bytes => void asked.push(bytes))
    const { options, close } = await vm({ memoryMiB: 1 << 20, capture: 'dirty' })
    await expect(hypervisor.define(options).wait?.()).rejects.toMatchObject({ code: 'HYPERVISOR_CAPTURE' })
    expect(asked).toEqual([])
    await expect(hypervisor.define(options).start()).rejects.toMatchObject({ code: 'HYPERVISOR_CAPTURE' })
    expect(asked).toEqual([2 ** 40])
    close()
  })

  it('does not start a VM that is held to dirty capture where that cannot be: why, and what to do', async () => {
    for (const [hypervisor, changes, why] of [
      [await create('portable', '/dev/shm'), {}, /hypervisor\.capture is "portable".*another host/],
      [await create('dirty', '/dev/shm'), { memoryMiB: 1 << 20 }, /has room for .*another host/]
    ] as const) {
      const { options, close } = await vm({ ...changes, capture: 'dirty' })
      const machine = hypervisor.define(options)
      const start = machine.start()
      await expect(start).rejects.toMatchObject({ code: 'HYPERVISOR_CAPTURE' })
      await expect(start).rejects.toThrow(why)
      expect(machine.pid).toBeUndefined()
      close()
    }
  })

  it('never shares the RAM of a VM that is held to portable capture, and tracks one that is held to dirty', async () => {
    const hypervisor = await create('dirty', '/dev/shm')
    for (const capture of ['portable', 'dirty'] as const) {
      const { options, close } = await vm({ capture })
      const machine = hypervisor.define(options)
      await machine.start()
      expect(machine.capture.mode).toBe(capture)
      expect(machine.tracking === undefined).toBe(capture === 'portable')
      const mapped = await readFile(`/proc/${machine.pid}/maps`, 'utf8')
      expect(/dev\/shm\/diapause/.test(mapped)).toBe(capture === 'dirty')
      await machine.destroy()
      close()
    }
  })
})

describe('the trial of capture', () => {
  let folder: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'capture-'))
  })
  afterEach(() => rm(folder, { recursive: true, force: true }))

  const settings = { qemu: 'qemu-system-x86_64', accel: 'tcg', capture: 'auto', ramDir: '/dev/shm' } as const

  /** Tries RAM that is as `spoilt` makes it of RAM as it is. */
  async function tried(spoilt: (ram: SharedRam) => Partial<SharedRam>, trialMs = 20_000): Promise<void> {
    const ramFolder = await RamFolder.probe({ folder: '/dev/shm', runDir: folder, clock })
    const options = { settings: { ...settings, trialMs }, peer: 'trial', runDir: folder, log: memoryLog(), clock }
    const makeRam = async (bytes: number): Promise<SharedRam> => {
      const ram = await ramFolder.make(bytes)
      const { fd, environment } = ram
      const { arm, changed, close } = { ...bound(ram), ...spoilt(ram) }
      return { fd, environment, arm, changed, close } as SharedRam
    }
    await trialCapture({ ...options, accel: 'tcg', makeRam })
    expect(await readdir(folder)).toEqual([])
  }

  const bound = (ram: SharedRam) => ({
    arm: (pid: number) => ram.arm(pid),
    changed: () => ram.changed(),
    close: () => ram.close()
  })

  it('passes where every page is told of', async () => {
    await expect(tried(() => ({}))).resolves.toBeUndefined()
  })

  it('finds a tracker that forgets a page now and then', async () => {
    const forgetful = tried(ram => ({ changed: async () => (await ram.changed()).slice(0, -2) }))
    await expect(forgetful).rejects.toThrow(/pages of its image were not as its RAM/)
    expect(await readdir(folder)).toEqual([])
  })

  it('finds a tracker that tells of nothing, and one that has died', async () => {
    let asked = 0
    const deaf = tried(ram => ({ changed: async () => (asked++ === 0 ? ram.changed() : new Uint32Array(0)) }))
    await expect(deaf).rejects.toThrow(/pages of its image were not as its RAM/)
    const dead = tried(ram => ({
      changed: async () => {
        await ram.close()
        return ram.changed()
      }
    }))
    await expect(dead).rejects.toMatchObject({ code: 'HYPERVISOR_TRACKING' })
  })

  it('ends in time, and leaves nothing behind', async () => {
    const never = tried(() => ({ arm: () => new Promise<void>(() => {}) }), 200)
    await expect(never).rejects.toThrow(/not ended after 1000 ms \(5 times hypervisor\.trialMs\)/)
    expect(await readdir(folder)).toEqual([])
  })
})
