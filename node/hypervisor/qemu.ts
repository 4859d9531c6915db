/** The QEMU driver: checks what is installed, chooses the accelerator, and defines machines. See README.md. */
import { createHash } from 'node:crypto'
import { execFile } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { HypervisorSettings } from '../../config/schema.ts'
import { renamed } from '../../protocols/boot-files.ts'
import type { PeerId } from '../../protocols/core.ts'
import { UsageError } from '../errors.ts'
import type { Clock, Hypervisor, Log } from '../ports.ts'
import { chooseAccel } from './accel.ts'
import { chooseCapture } from './capture-choice.ts'
import { guestName, requireSocketPaths } from './command-line.ts'
import { mayTrace, type QemuProgram, SANDBOX } from './confinement.ts'
import { GuestChannel } from './guest-agent.ts'
import { QemuMachine } from './machine.ts'
import { buildNative } from './native.ts'
import { environmentOfQemu, ownPrivileges } from './process.ts'

const run = promisify(execFile)

/** `-netdev stream` came with 7.2. */
const OLDEST: Version = [7, 2]
/** From here on a background snapshot leaves a stopped VM stopped (background-snapshot.ts). */
const LEAVES_STOPPED: Version = [9, 0]

type Version = readonly [major: number, minor: number]

export interface QemuVersion {
  /** As it says it. */
  readonly text: string
  readonly number: Version
}

export interface InstalledQemu extends QemuVersion {
  readonly program: QemuProgram
}

export interface QemuOptions {
  readonly settings: HypervisorSettings
  readonly peer: PeerId
  /** Exists or is made; the machines' control sockets are in it. */
  readonly runDir: string
  /** As in `TrialOptions`. */
  readonly nativeDir?: string
  readonly log: Log
  readonly clock: Clock
  /** Where on this host a kernel or initrd lies, by its name in a specification. Absent: names are paths. */
  readonly bootPath?: (name: string) => string
}

/**
 * The driver for this host's QEMU. Takes as long as a trial boot does, at most `settings.trialMs` and a little.
 * UsageErrors: QEMU_MISSING, QEMU_TOO_OLD, QEMU_UNKNOWN, HYPERVISOR_KVM, HYPERVISOR_CAPTURE.
 */
export async function createQemuHypervisor(options: QemuOptions): Promise<Hypervisor> {
  const { settings, peer, runDir, nativeDir, log, clock, bootPath = name => name } = options
  const version = await installedQemu(settings)
  const preload = await preloaded(version.program.path, nativeDir)
  const program = { ...version.program, preload }
  if (!program.sandbox) log.warn({ qemu: program.path }, NO_SANDBOX)
  if (program.confined && mayTrace(ownPrivileges(), preload !== undefined)) log.warn({}, TRACES)
  await mkdir(runDir, { recursive: true, mode: 0o700 })
  const { accel } = await chooseAccel({ ...options, program })
  const { ramFolder, why: captureWhy } = await chooseCapture({ ...options, program, accel })
  const capture = ramFolder ? 'dirty' : 'portable'
  const description = `QEMU ${version.text}, ${accel}`
  log.info({ hypervisor: description, capture }, 'hypervisor chosen')
  let defined = 0
  let makeRoom: ((bytes: number) => Promise<void>) | undefined
  return {
    description,
    accel,
    capture,
    captureWhy,
    close: async () => ramFolder?.close(),
    onFull: handler => {
      makeRoom = handler
    },
    define: machine => {
      const { consolePath } = machine
      const spec = renamed(machine.spec, bootPath)
      // An id may have 63 letters and a socket's whole path 107: 72 bits of a hash tell the VMs of one host apart. The
      // number keeps apart two machines of one VM, of which the older is just being destroyed.
      const name = `${createHash('sha256').update(spec.id).digest('base64url').slice(0, 12)}.${++defined}`
      const paths = {
        qmp: join(runDir, `${name}.qmp`),
        consoleLog: consolePath,
        agent: join(runDir, `${name}.agent`)
      }
      requireSocketPaths(spec.id, paths)
      const options = { ...machine, spec }
      return new QemuMachine(options, {
        program,
        accel,
        guest: guestName(peer, spec.id),
        paths,
        agent: spec.guestAgent && new GuestChannel(paths.agent, clock),
        resumesByItself: before(version.number, LEAVES_STOPPED),
        makeRam: ramFolder && ((bytes, waits) => ramFolder.make(bytes, waits ? undefined : makeRoom)),
        captureWhy,
        clock,
        log
      })
    }
  }
}

/**
 * The library that is loaded into this QEMU; undefined where nobody has compiled it, or where QEMU takes none, as one that is linked
 * statically: it runs without.
 */
export async function preloaded(path: string, nativeDir: string | undefined): Promise<string | undefined> {
  try {
    const { handoff } = await buildNative({ own: nativeDir })
    const env = { ...environmentOfQemu(), LD_PRELOAD: handoff, DIAPAUSE_TELL: '1' }
    const { stderr } = await run(path, ['--version'], { timeout: 10_000, env })
    return stderr.includes('diapause: loaded') ? handoff : undefined
  } catch {
    return undefined
  }
}

/** Of a QEMU that is given CAP_SYS_PTRACE. */
export const TRACES =
  'a guest that breaks out of its QEMU may write the memory of every process of this host: see diapause doctor'

export const NO_SANDBOX =
  'this QEMU was built without seccomp: a guest that breaks out of it may use every system call. Install a build that has it'

/** What is installed and how it is started. UsageErrors as `createQemuHypervisor`. */
export async function installedQemu(settings: Pick<HypervisorSettings, 'qemu' | 'confined'>): Promise<InstalledQemu> {
  const { qemu: path, confined = true } = settings
  const sandboxed = await askVersion(path, SANDBOX).catch(() => undefined)
  const version = parseQemuVersion(sandboxed ?? (await askVersion(path)), path)
  return { ...version, program: { path, sandbox: sandboxed !== undefined, confined } }
}

async function askVersion(binary: string, before: readonly string[] = []): Promise<string> {
  try {
    return (await run(binary, [...before, '--version'], { timeout: 10_000 })).stdout
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') {
      throw new UsageError('QEMU_UNKNOWN', `"${binary} --version" failed: set hypervisor.qemu to a working QEMU`, {
        cause
      })
    }
    throw new UsageError(
      'QEMU_MISSING',
      `${binary} is not installed or not on PATH. On Debian: apt-get install qemu-system-x86; ` +
        'elsewhere install QEMU 7.2 or later, or set hypervisor.qemu to its path',
      { cause }
    )
  }
}

/** From the output of `--version`. UsageError QEMU_UNKNOWN where there is none in it, QEMU_TOO_OLD below 7.2. */
export function parseQemuVersion(output: string, binary: string): QemuVersion {
  const found = /QEMU emulator version ((\d{1,4})\.(\d{1,4})(?:\.\d{1,4})?)/.exec(output)
  if (!found?.[1]) {
    throw new UsageError('QEMU_UNKNOWN', `${binary} does not say which QEMU it is: set hypervisor.qemu to a QEMU`, {
      details: { output: output.slice(0, 200) }
    })
  }
  const number: Version = [Number(found[2]), Number(found[3])]
  if (before(number, OLDEST)) {
    throw new UsageError(
      'QEMU_TOO_OLD',
      `${binary} is QEMU ${found[1]}, but diapause needs 7.2 or later (for -netdev stream): upgrade it`,
      { details: { version: found[1], oldest: OLDEST.join('.') } }
    )
  }
  return { text: found[1], number }
}

function before(a: Version, b: Version): boolean {
  return a[0] < b[0] || (a[0] === b[0] && a[1] < b[1])
}
