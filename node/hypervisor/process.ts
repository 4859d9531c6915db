/**
 * QEMU as a child process that cannot outlive this one: `setpriv --pdeathsig KILL` asks the kernel to kill it when its
 * parent dies, however it dies. "Parent" is the thread that forked, and not the process (prctl(2)): a QEMU started
 * from a worker thread would die with that worker. So this must run on the main thread, which it checks. A parent
 * that dies between fork and prctl leaves an orphan; those are `stale.ts`'s to kill.
 */
import { spawn } from 'node:child_process'
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs'
import type { Writable } from 'node:stream'
import { isMainThread } from 'node:worker_threads'
import { DiapauseError } from '../errors.ts'
import {
  plainEnvironment,
  privilegeFlags,
  type Privileges,
  type QemuProgram,
  readsOthersFiles,
  SANDBOX,
  type UserfaultfdFor
} from './confinement.ts'
import { opensWithoutPrivilege } from './own-files.ts'

/** How much of QEMU's stderr is kept for error messages: its last lines say why it died. */
const STDERR_TAIL_CHARS = 2_000
/** linux/major.h: of /dev/userfaultfd, among others. */
const MISC_MAJOR = 10

export interface QemuProcess {
  readonly pid: number
  /** Resolves (never rejects) with the reason when the process is gone and its output read. */
  readonly exited: Promise<QemuExit>
  /** Its standard input, of which a VM's console reads. */
  readonly input: Writable
  kill(): void
}

export interface QemuExit {
  /** Null where a signal ended it. */
  readonly status: number | null
  /** For people: status or signal, and the last lines of stderr. */
  readonly reason: string
}

export interface Inherited {
  /** QEMU's descriptor 3. */
  readonly fd: number
  /** Set for QEMU alone, and not for the setpriv that becomes it: LD_PRELOAD would act there, too. */
  readonly environment: Readonly<Record<string, string>>
}

/** What this QEMU is for, by which it is left a privilege. Absent: it runs a guest, whose files are its user's. */
export interface Purpose {
  /** False: it runs none. */
  readonly guest?: boolean
  /** What it opens. */
  readonly files?: readonly string[]
  /** It opens a TAP device that may be of another user. */
  readonly tap?: boolean
}

/** Starts QEMU, confined (`confinement.ts`). Rejects with HYPERVISOR_SPAWN where the process cannot be made. */
export async function spawnQemu(
  qemu: string | QemuProgram,
  args: readonly string[],
  inherited?: Inherited,
  purpose: Purpose = {}
): Promise<QemuProcess> {
  if (!isMainThread) throw new TypeError('QEMU must be started by the main thread: it dies with the thread that forks')
  const program: QemuProgram = typeof qemu === 'string' ? { path: qemu, sandbox: true, confined: true } : qemu
  const { path, sandbox, confined, preload } = program
  const environment = { ...(preload !== undefined && { LD_PRELOAD: preload }), ...inherited?.environment }
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`)
  const words = [
    ['--pdeathsig', 'KILL', ...(confined ? flagsFor(purpose, environment['LD_PRELOAD'] !== undefined) : []), '--'],
    variables.length > 0 ? ['env', ...variables, path] : [path],
    sandbox ? SANDBOX : [],
    args
  ]
  const child = spawn('setpriv', words.flat(), {
    env: environmentOfQemu(),
    stdio: ['pipe', 'ignore', 'pipe', ...(inherited ? [inherited.fd] : [])]
  })
  const spawned = new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve)
    child.on('error', cause => reject(notSpawned(cause)))
  })
  // Where no descriptor is free for its pipes there are none, and the error follows.
  child.stdin?.on('error', () => {}) // what a QEMU that has just ended did not read is lost
  let tail = ''
  child.stderr?.setEncoding('utf8')
  child.stderr?.on('data', (text: string) => {
    tail = (tail + text).slice(-STDERR_TAIL_CHARS)
  })
  const exited = new Promise<QemuExit>(resolve => {
    child.once('close', (status: number | null, signal: string | null) => {
      const how = signal === null ? `with status ${status}` : `by signal ${signal}`
      resolve({ status, reason: tail.trim() ? `ended ${how}: ${tail.trim()}` : `ended ${how}` })
    })
  })
  await spawned
  const { pid, stdin: input } = child
  if (pid === undefined || input === null) {
    throw new DiapauseError('HYPERVISOR_SPAWN', 'QEMU was started but has no process id')
  }
  return { pid, exited, input, kill: () => void child.kill('SIGKILL') }
}

const notSpawned = (cause: Error): DiapauseError =>
  new DiapauseError(
    'HYPERVISOR_SPAWN',
    `QEMU could not be started through setpriv (Debian package util-linux): ${cause.message}`,
    { cause }
  )

/** Nothing of this process's that may be a secret. */
export const environmentOfQemu = (): NodeJS.ProcessEnv => plainEnvironment(process.env)

function flagsFor({ guest = true, files = [], tap = false }: Purpose, preloaded: boolean): string[] {
  const own = ownPrivileges()
  const othersFiles = readsOthersFiles(own) && !files.every(opensWithoutPrivilege)
  return privilegeFlags(own, { userfaultfd: guest, othersFiles, tap }, preloaded)
}

/** Looked at each time, some small files: an operator may change the kernel's settings while a peer runs. */
export function ownPrivileges(): Privileges {
  return { status: readFileSync('/proc/self/status', 'latin1'), userfaultfd: userfaultfdFor() }
}

function userfaultfdFor(): UserfaultfdFor {
  if (setting() !== '0') return 'everybody'
  let device: number | undefined
  try {
    device = openSync('/dev/userfaultfd', 'r+')
    // Another device may have been put there, as /dev/null in the place of one that a host has not.
    return ((fstatSync(device).rdev >> 8) & 0xfff) === MISC_MAJOR ? 'who opens the device' : 'who may trace'
  } catch {
    return 'who may trace'
  } finally {
    if (device !== undefined) closeSync(device)
  }
}

/** '' where the kernel is older than the setting (5.2), and gives a userfaultfd to all. */
function setting(): string {
  try {
    return readFileSync('/proc/sys/vm/unprivileged_userfaultfd', 'latin1').trim()
  } catch {
    return ''
  }
}
