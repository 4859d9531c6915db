import { existsSync } from 'node:fs'
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { trialBoot } from '../../node/hypervisor/accel.ts'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import { clock, memoryLog } from './real-clock.ts'

describe('the choice of QEMU and its accelerator', () => {
  let folder: string
  let log: ReturnType<typeof memoryLog>

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'accel-'))
    log = memoryLog()
  })
  afterEach(() => rm(folder, { recursive: true, force: true }))

  const options = (changes: { qemu?: string; accel?: 'auto' | 'kvm' | 'tcg'; trialMs?: number } = {}) => ({
    settings: {
      qemu: 'qemu-system-x86_64',
      accel: 'auto' as const,
      trialMs: 5_000,
      capture: 'portable' as const,
      ramDir: '/dev/shm',
      ...changes
    },
    peer: 'trial-test',
    runDir: folder,
    log,
    clock
  })

  /** A program in QEMU's place that answers --version and else does `body`. */
  async function fakeQemu(version: string, body: string): Promise<string> {
    const path = join(folder, 'fake-qemu')
    const answer = `[ "$1" = --version ] && { echo "QEMU emulator version ${version}"; exit; }`
    await writeFile(path, `#!/bin/sh\n${answer}\n${body}\n`)
    await chmod(path, 0o755)
    return path
  }

  it('boots a sector that enters long mode and ends QEMU from there', async () => {
    expect(await trialBoot('tcg', options({ trialMs: 30_000 }))).toBeUndefined()
    expect(await readdir(folder)).toEqual([])
  })

  it('takes an accelerator that hangs for one that does not work, and leaves no process', async () => {
    const qemu = await fakeQemu('7.2.0', `echo $$ > ${folder}/pid; exec sleep 1000`)
    expect(await trialBoot('kvm', options({ qemu, trialMs: 300 }))).toMatch(/not run after 300 ms/)
    expect(existsSync(`/proc/${(await readFile(join(folder, 'pid'), 'utf8')).trim()}/exe`)).toBe(false)
  })

  it('says what a QEMU that dies in the trial said', async () => {
    const qemu = await fakeQemu('7.2.0', 'echo "failed to set MSR" >&2; exit 1')
    expect(await trialBoot('kvm', options({ qemu }))).toMatch(/status 1: failed to set MSR/)
  })

  it('uses KVM where it runs a guest, and else falls back to TCG with a line that says why', async () => {
    const hypervisor = await createQemuHypervisor(options())
    const warnings = log.lines.filter(line => line.level === 'warn').map(line => line.message)
    const fellBack = ['KVM runs no guest here: VMs run under TCG, which is slower']
    expect(warnings).toEqual(hypervisor.accel === 'kvm' ? [] : fellBack)
    expect(hypervisor.description).toMatch(/^QEMU \d+\.\d+.*, (kvm|tcg)$/)
  })

  it('tells with the fallback what was wrong with KVM', async () => {
    const qemu = await fakeQemu('9.0.1', 'exit 1')
    expect((await createQemuHypervisor(options({ qemu }))).accel).toBe('tcg')
    // Another warning is that this one has no filter of system calls.
    const warning = log.lines.find(line => line.level === 'warn' && line.message.includes('KVM'))
    expect(warning?.fields).toMatchObject({ failure: expect.stringMatching(/kvm|trial boot/) })
  })

  it('refuses to go on where KVM is demanded and runs no guest', async () => {
    const qemu = await fakeQemu('9.0.1', 'exit 1')
    const demanded = createQemuHypervisor(options({ qemu, accel: 'kvm' }))
    const message = expect.stringMatching(/^KVM runs no guest here, .*\. In detail: ./) as string
    await expect(demanded).rejects.toMatchObject({ code: 'HYPERVISOR_KVM', name: 'UsageError', message })
  })

  it('tries nothing where TCG is asked for', async () => {
    const qemu = await fakeQemu('8.1.0', 'exit 1')
    expect((await createQemuHypervisor(options({ qemu, accel: 'tcg' }))).description).toBe('QEMU 8.1.0, tcg')
  })

  it('says how to install QEMU where there is none, and that it is too old where it is', async () => {
    const missing = createQemuHypervisor(options({ qemu: 'no-such-qemu' }))
    await expect(missing).rejects.toMatchObject({
      code: 'QEMU_MISSING',
      message: expect.stringMatching('apt-get install qemu-system-x86')
    })
    const old = createQemuHypervisor(options({ qemu: await fakeQemu('6.2.0', '') }))
    await expect(old).rejects.toMatchObject({ code: 'QEMU_TOO_OLD' })
  })
})
