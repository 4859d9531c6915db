/**
 * Whether images made of written pages are RAM on this host, found out by making some. The probe of `native/tracker.c` shows
 * that the kernel notes writes of a process to its own memory; here a guest writes, through this QEMU and its accelerator, and
 * is cut as the product does it: its pages are copied in rounds while it runs, the last when it stands still for its devices.
 * Then the copy must be the RAM file byte for byte; and again, after it has run on.
 *
 * The guest is a boot sector that writes four bytes somewhere in one of 2,048 pages of 16 MiB, again and again, with
 * 20,000 empty turns between: some ten to fifty thousand a second, so that a round finds a part of them written, and not all.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { readSync } from 'node:fs'
import { join } from 'node:path'
import { DiapauseError } from '../errors.ts'
import type { Clock } from '../ports.ts'
import type { TrialOptions } from './accel.ts'
import { cleanedUp, prepare } from './background-snapshot.ts'
import {
  type Accel,
  commonArguments,
  escapeComma,
  guestName,
  SHARED_RAM_MACHINE,
  sharedRamArguments,
  TRIAL_PREFIX
} from './command-line.ts'
import { continueAfterDevices, stopToSendDevices } from './device-state.ts'
import { spawnQemu } from './process.ts'
import { handled, listenForQmp, QmpClient } from './qmp.ts'
import type { SharedRam } from './shared-ram.ts'

const MEMORY_MIB = 16
const MEMORY_BYTES = MEMORY_MIB << 20
const PAGE_BYTES = 4096
/** The guest writes this where it begins; `MARK` is where. */
const MARK = 0x8000
const SIGN = 'DIAP'
/**
 * Times `hypervisor.trialMs`. One that is late tells of a busy host and not of its kernel, and a peer that gave up would cut worse
 * for all its life: 230 ms alone, 1.2 s for each of five peers that start at once on two cores, 5 s for each of ten (measured).
 */
const PATIENCE = 5
const LOOK_AGAIN_MS = 5
/** The second is of a VM that was tracked through a cut. */
const CUTS = 2
/** Before the pause, with as many milliseconds between them. A guess: what the guest writes in them is hundreds of pages. */
const ROUNDS = 3
const ROUND_MS = 5

export interface CaptureTrialOptions extends TrialOptions {
  readonly accel: Accel
  makeRam(bytes: number): Promise<SharedRam>
}

/**
 * Resolves where the images were RAM. HYPERVISOR_TRACKING where they were not, or where that was not known within five times
 * `settings.trialMs`; or what else has failed.
 */
export async function trialCapture(options: CaptureTrialOptions): Promise<void> {
  const { settings, clock } = options
  let over = false
  const cleanUps: (() => unknown)[] = []
  const late = Promise.withResolvers<never>()
  const limitMs = PATIENCE * settings.trialMs
  const disarm = clock.after(limitMs, () =>
    late.reject(failed(`it had not ended after ${limitMs} ms (${PATIENCE} times hypervisor.trialMs)`))
  )
  // What is still made when it is too late goes at once.
  const trial = handled(run(options, cleanUp => (over ? cleanUp() : cleanUps.push(cleanUp))))
  try {
    await Promise.race([trial, late.promise])
  } finally {
    disarm()
    over = true
    for (const cleanUp of cleanUps.reverse()) await cleanUp()
  }
}

async function run(options: CaptureTrialOptions, atEnd: (cleanUp: () => unknown) => void): Promise<void> {
  const { clock, settings, accel, peer } = options
  const folder = await mkdtemp(join(options.runDir, TRIAL_PREFIX))
  atEnd(() => rm(folder, { recursive: true, force: true }))
  const boot = join(folder, 'boot')
  await writeFile(boot, writingSector())
  const ram = await options.makeRam(MEMORY_BYTES)
  atEnd(() => ram.close())
  const listener = await listenForQmp(join(folder, 'qmp'))
  atEnd(() => listener.close())
  const args = [
    commonArguments(accel, guestName(peer, 'trial'), SHARED_RAM_MACHINE),
    sharedRamArguments(MEMORY_MIB),
    ['-m', `${MEMORY_MIB}M`, '-qmp', `unix:${escapeComma(join(folder, 'qmp'))},server=off`],
    ['-drive', `if=floppy,format=raw,readonly=on,file=${escapeComma(boot)}`]
  ]
  const qemu = await spawnQemu(options.program ?? settings.qemu, args.flat(), ram, { files: [boot] })
  atEnd(() => {
    qemu.kill()
    return qemu.exited
  })
  const gone: Promise<never> = handled(
    qemu.exited.then(({ reason }) => {
      throw failed(`QEMU ${reason}`)
    })
  )
  const qmp = await QmpClient.open(await Promise.race([listener.connection, gone]), { clock })
  atEnd(() => qmp.close())
  await Promise.race([begun(ram, clock), gone])
  await ram.arm(qemu.pid)
  await prepare(qmp, 'devices')
  const copy = Buffer.alloc(MEMORY_BYTES)
  for (let told = 0, cut = 1; told < CUTS; cut++) {
    const written = await cutOnce({ qmp, ram, copy, clock, path: join(folder, `cut${cut}`) })
    // Nothing: a busy host had no turn for the guest since the last round, and this cut says nothing of its kernel.
    if (written > 0) told++
  }
}

/** The guest writes. */
async function begun({ fd }: SharedRam, clock: Clock): Promise<void> {
  const mark = Buffer.alloc(SIGN.length)
  for (;;) {
    readSync(fd, mark, 0, mark.length, MARK)
    if (mark.toString('latin1') === SIGN) return
    await pause(clock, LOOK_AGAIN_MS)
  }
}

interface CutParts {
  readonly qmp: QmpClient
  readonly ram: SharedRam
  /** What was copied so far. */
  readonly copy: Buffer
  readonly clock: Clock
  readonly path: string
}

/** Copies in rounds, stops the VM, copies the rest, compares, and lets it run on. How many pages the rest were. */
async function cutOnce({ qmp, ram, copy, clock, path }: CutParts): Promise<number> {
  for (let round = 0; round < ROUNDS; round++) {
    await copyChanged(ram, copy)
    await pause(clock, ROUND_MS)
  }
  const receiver = createServer(socket => socket.resume().on('error', () => {}))
  await new Promise<void>((resolve, reject) => receiver.on('error', reject).listen(path, resolve))
  try {
    const stream = await stopToSendDevices(qmp, path, clock)
    const last = await copyChanged(ram, copy)
    requireRam(ram, copy)
    await stream.finish()
    await continueAfterDevices(qmp, clock)
    await cleanedUp(qmp)
    return last
  } finally {
    receiver.close()
  }
}

/** What was written since the last time; how many pages. */
async function copyChanged(ram: SharedRam, copy: Buffer): Promise<number> {
  const ranges = await ram.changed()
  let count = 0
  for (let i = 0; i < ranges.length; i += 2) {
    const [first = 0, pages = 0] = [ranges[i], ranges[i + 1]]
    readSync(ram.fd, copy, first * PAGE_BYTES, pages * PAGE_BYTES, first * PAGE_BYTES)
    count += pages
  }
  return count
}

function requireRam({ fd }: SharedRam, copy: Buffer): void {
  const whole = Buffer.alloc(MEMORY_BYTES)
  readSync(fd, whole, 0, MEMORY_BYTES, 0)
  const wrong: number[] = []
  for (let at = 0; at < MEMORY_BYTES; at += PAGE_BYTES) {
    if (whole.compare(copy, at, at + PAGE_BYTES, at, at + PAGE_BYTES) !== 0) wrong.push(at / PAGE_BYTES)
  }
  if (wrong.length === 0) return
  const pages = MEMORY_BYTES / PAGE_BYTES
  throw failed(`${wrong.length} of ${pages} pages of its image were not as its RAM, the first of them ${wrong[0]}`)
}

const failed = (why: string): DiapauseError =>
  new DiapauseError(
    'HYPERVISOR_TRACKING',
    `a trial VM, cut by copying what it had written, came to nothing: ${why}. Where that comes again, report it; ` +
      'hypervisor.capture = "portable" does without'
  )

const pause = (clock: Clock, ms: number): Promise<void> => new Promise(resolve => void clock.after(ms, resolve))

/** 512 bytes that a BIOS loads at 0x7c00 and runs in real mode. Assembled by hand with GNU as; checked by running it. */
function writingSector(): Uint8Array {
  const code = [
    [0xfa], //                                     cli
    [0x31, 0xc0, 0x8e, 0xd8], //                   xor  ax, ax; mov ds, ax
    [0xe4, 0x92, 0x0c, 0x02, 0xe6, 0x92], //       in   al, 0x92; or al, 2; out 0x92, al: all address lines
    [0x0f, 0x01, 0x16, 0x78, 0x7c], //             lgdt [0x7c78]
    [0x0f, 0x20, 0xc0, 0x0c, 0x01], //             mov  eax, cr0; or al, PE
    [0x0f, 0x22, 0xc0], //                         mov  cr0, eax
    [0xea, 0x1d, 0x7c, 0x08, 0x00], //             jmp  8:0x7c1d, which is 32-bit code:
    [0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8], //       mov  ax, 16; mov ds, ax
    [0xc7, 0x05, 0x00, 0x80, 0x00, 0x00, ...Buffer.from(SIGN)], // mov dword [MARK], SIGN
    [0xbb, 0x01, 0x00, 0x00, 0x00], //             mov  ebx, 1
    [0x69, 0xdb, 0x0d, 0x66, 0x19, 0x00], //  next: imul ebx, ebx, 1664525
    [0x81, 0xc3, 0x5f, 0xf3, 0x6e, 0x3c], //       add  ebx, 1013904223: Numerical Recipes' generator
    [0x89, 0xd8, 0xc1, 0xe8, 0x14], //             mov  eax, ebx; shr eax, 20: a page of 4,096,
    [0x80, 0xcc, 0x01, 0xc1, 0xe0, 0x0c], //       or   ah, 1; shl eax, 12: in an odd MiB
    [0x89, 0xda, 0x81, 0xe2, 0xfc, 0x0f, 0x00, 0x00], // mov edx, ebx; and edx, 0xffc: a word of it
    [0x89, 0x1c, 0x10], //                         mov  [eax + edx], ebx
    [0xb9, 0x20, 0x4e, 0x00, 0x00, 0xe2, 0xfe], // mov  ecx, 20000; loop to itself
    [0xeb, 0xd5] //                                jmp  next
  ].flat()
  const sector = new Uint8Array(512)
  const view = new DataView(sector.buffer)
  sector.set(code)
  view.setBigUint64(0x68, 0x00cf_9a00_0000_ffffn, true) // GDT at 0x7c60: null, then all of memory as code, and as data
  view.setBigUint64(0x70, 0x00cf_9200_0000_ffffn, true)
  view.setUint16(0x78, 23, true) // lgdt's operand: limit, address
  view.setUint32(0x7a, 0x7c60, true)
  view.setUint16(510, 0xaa55, true)
  return sector
}
