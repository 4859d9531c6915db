/** Which way of capture the driver chooses, and what it says where the better one is not to be had. */
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
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

  it('is dirty where that works, and portable where it is asked for', async () => {
    expect((await create('auto', '/dev/shm')).capture).toBe('dirty')
    expect((await create('portable', '/dev/shm')).capture).toBe('portable')
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
    const spec = { ...bankVm(await buildGuest(), { index: 1, total: 1, memoryMiB: 64 }), memoryMiB: 1 << 20 }
    const nicPath = join(folder, 'nic')
    const nic = createServer().listen(nicPath)
    const ends = [{ kind: 'stream', path: nicPath }] as const
    const machine = hypervisor.define({ spec, ends, consolePath: join(folder, 'console'), onExit() {} })
    // A TiB of RAM: QEMU may or may not start with it, which does not matter here.
    await Promise.allSettled([machine.start()])
    expect(machine.tracking).toBeUndefined()
    expect(warnings()).toMatchObject([{ fields: { why: expect.stringMatching(/has room for \d+ MiB/) } }])
    await machine.destroy()
    nic.close()
  })
})
