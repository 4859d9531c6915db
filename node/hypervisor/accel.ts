/**
 * Which accelerator runs guests on this host, found out by running one. That /dev/kvm exists and opens says little: on
 * nested machines it may accept a VM and then never run it (measured: a hang with `-cpu qemu64`; with `-cpu host` QEMU
 * 7.2 aborts on an MSR). So a boot sector is booted with the CPU that VMs get, under a deadline. It does what a Linux
 * kernel does first and what half-virtualized hosts fail at: it writes an MSR (EFER) and enters long mode with paging
 * on; then it writes to the port of isa-debug-exit, upon which QEMU ends with a status of its choosing.
 *
 * TCG is not tried: it needs nothing of the hardware, and a deadline missed on a busy host would only do harm.
 */
import { access, constants, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { UsageError, messageOf } from '../errors.ts'
import type { HypervisorSettings } from '../../config/schema.ts'
import type { Clock, Log } from '../ports.ts'
import { type Accel, commonArguments, escapeComma, guestName, TRIAL_PREFIX } from './command-line.ts'
import type { QemuProgram } from './confinement.ts'
import { spawnQemu } from './process.ts'

/** isa-debug-exit ends QEMU with status (value << 1) | 1. */
const EXIT_VALUE = 0x10
const EXIT_STATUS = (EXIT_VALUE << 1) | 1

export interface TrialOptions {
  readonly settings: HypervisorSettings
  /** What `settings.qemu` is; not asked where it is absent. */
  readonly program?: QemuProgram | undefined
  readonly peer: string
  readonly runDir: string
  /** Where this peer builds the helpers in C for itself, where it may not for all; a file in it must be allowed to run. */
  readonly nativeDir?: string | undefined
  readonly log: Log
  readonly clock: Clock
}

export interface AccelChoice {
  readonly accel: Accel
  /** Why it is not KVM; undefined where it is. */
  readonly why: string | undefined
}

/** The accelerator that the settings ask for and that works. UsageError HYPERVISOR_KVM where KVM is demanded and does not. */
export async function chooseAccel(options: TrialOptions): Promise<AccelChoice> {
  const { settings, log } = options
  if (settings.accel === 'tcg') return { accel: 'tcg', why: 'hypervisor.accel is "tcg"' }
  const failure = await tryKvm(options)
  if (failure === undefined) return { accel: 'kvm', why: undefined }
  if (settings.accel === 'kvm') {
    throw new UsageError(
      'HYPERVISOR_KVM',
      `KVM runs no guest here, and hypervisor.accel is "kvm": set it to "auto" or "tcg", or mend /dev/kvm. In detail: ${failure}`,
      { details: { failure } }
    )
  }
  log.warn({ failure }, 'KVM runs no guest here: VMs run under TCG, which is slower')
  return { accel: 'tcg', why: failure }
}

/** Why KVM does not run a guest; undefined where it does. */
async function tryKvm(options: TrialOptions): Promise<string | undefined> {
  try {
    await access('/dev/kvm', constants.R_OK | constants.W_OK)
  } catch (error) {
    return `/dev/kvm cannot be opened (${messageOf(error)})`
  }
  return trialBoot('kvm', options)
}

/** Boots the boot sector under `accel`. Why it did not run; undefined where it did. */
export async function trialBoot(accel: Accel, options: TrialOptions): Promise<string | undefined> {
  const { settings, clock } = options
  const folder = await mkdtemp(join(options.runDir, TRIAL_PREFIX))
  try {
    const image = join(folder, 'boot')
    await writeFile(image, bootSector())
    const args = [
      commonArguments(accel, guestName(options.peer, 'trial')),
      ['-m', '16', '-device', 'isa-debug-exit,iobase=0xf4,iosize=1'],
      ['-drive', `if=floppy,format=raw,readonly=on,file=${escapeComma(image)}`]
    ]
    const qemu = await spawnQemu(options.program ?? settings.qemu, args.flat(), undefined, { files: [image] })
    let late = false
    const disarm = clock.after(settings.trialMs, () => {
      late = true
      qemu.kill()
    })
    const exit = await qemu.exited
    disarm()
    if (late) return `the trial boot had not run after ${settings.trialMs} ms (hypervisor.trialMs)`
    return exit.status === EXIT_STATUS ? undefined : `the trial boot ${exit.reason}`
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** 512 bytes that a BIOS loads at 0x7c00 and runs in real mode. Assembled by hand with GNU as; checked by booting it. */
export function bootSector(): Uint8Array {
  const code = [
    [0xfa], //                                     cli
    [0x31, 0xc0], //                               xor  ax, ax
    [0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0], //       mov  ds, ax; mov es, ax; mov ss, ax
    [0xbc, 0x00, 0x7c], //                         mov  sp, 0x7c00
    [0xbf, 0x00, 0x10, 0xb9, 0x00, 0x18], //       mov  di, 0x1000; mov cx, 0x1800
    [0xfc, 0xf3, 0xab], //                         cld; rep stosw: clear the page tables' three pages
    [0xc7, 0x06, 0x00, 0x10, 0x03, 0x20], //       mov  word [0x1000], 0x2003: PML4[0] → PDPT
    [0xc7, 0x06, 0x00, 0x20, 0x03, 0x30], //       mov  word [0x2000], 0x3003: PDPT[0] → PD
    [0xc7, 0x06, 0x00, 0x30, 0x83, 0x00], //       mov  word [0x3000], 0x0083: PD[0] = 2 MiB at 0
    [0x66, 0xb8, 0x00, 0x10, 0x00, 0x00], //       mov  eax, 0x1000
    [0x0f, 0x22, 0xd8], //                         mov  cr3, eax
    [0x0f, 0x20, 0xe0, 0x0c, 0x20], //             mov  eax, cr4; or al, PAE
    [0x0f, 0x22, 0xe0], //                         mov  cr4, eax
    [0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0], //       mov  ecx, EFER
    [0x0f, 0x32, 0x0d, 0x00, 0x01, 0x0f, 0x30], // rdmsr; or ax, LME; wrmsr
    [0x0f, 0x01, 0x16, 0x78, 0x7c], //             lgdt [0x7c78]
    [0x0f, 0x20, 0xc0], //                         mov  eax, cr0
    [0x66, 0x0d, 0x01, 0x00, 0x00, 0x80], //       or   eax, PG | PE
    [0x0f, 0x22, 0xc0], //                         mov  cr0, eax
    [0xea, 0x5b, 0x7c, 0x08, 0x00], //             jmp  8:0x7c5b, which is 64-bit code:
    [0xb0, EXIT_VALUE, 0xe6, 0xf4], //             mov  al, EXIT_VALUE; out 0xf4, al
    [0xf4, 0xeb, 0xfd] //                          hlt; jmp to the hlt
  ].flat()
  const sector = new Uint8Array(512)
  const view = new DataView(sector.buffer)
  sector.set(code)
  view.setBigUint64(0x70, 0x0020_9a00_0000_0000n, true) // GDT at 0x7c68: null, then a 64-bit code segment
  view.setUint16(0x78, 15, true) // lgdt's operand: limit, address
  view.setUint32(0x7a, 0x7c68, true)
  view.setUint16(510, 0xaa55, true)
  return sector
}
