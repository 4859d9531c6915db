/**
 * QEMU as a child process that cannot outlive this one: `setpriv --pdeathsig KILL` asks the kernel to kill it when its
 * parent dies, however it dies. "Parent" is the thread that forked, and not the process (prctl(2)): a QEMU started
 * from a worker thread would die with that worker. So this must run on the main thread, which it checks. A parent
 * that dies between fork and prctl leaves an orphan; those are `stale.ts`'s to kill.
 */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { isMainThread } from 'node:worker_threads'
import { DiapauseError } from '../errors.ts'
import {
  type Capability,
  plainEnvironment,
  privilegeFlags,
  type Privileges,
  type QemuProgram,
  SANDBOX
} from './confinement.ts'

/** How much of QEMU's stderr is kept for error messages: its last lines say why it died. */
const STDERR_TAIL_CHARS = 2_000

export interface QemuProcess {
  readonly pid: number
  /** Resolves (never rejects) with the reason when the process is gone and its output read. */
  readonly exited: Promise<QemuExit>
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

/** Starts QEMU, confined (`confinement.ts`). Rejects with HYPERVISOR_SPAWN where the process cannot be made. */
export async function spawnQemu(
  qemu: string | QemuProgram,
  args: readonly string[],
  inherited?: Inherited,
  needs: readonly Capability[] = []
): Promise<QemuProcess> {
  if (!isMainThread) throw new TypeError('QEMU must be started by the main thread: it dies with the thread that forks')
  const { path, sandbox, confined } = typeof qemu === 'string' ? { path: qemu, sandbox: true, confined: true } : qemu
  const variables = Object.entries(inherited?.environment ?? {}).map(([name, value]) => `${name}=${value}`)
  const words = [
    ['--pdeathsig', 'KILL', ...(confined ? privilegeFlags({ ...ownPrivileges(), needs }) : []), '--'],
    inherited ? ['env', ...variables, path] : [path],
    sandbox ? SANDBOX : [],
    args
  ]
  const child = spawn('setpriv', words.flat(), {
    env: plainEnvironment(process.env),
    stdio: ['ignore', 'ignore', 'pipe', ...(inherited ? [inherited.fd] : [])]
  })
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
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve)
    child.once('error', cause =>
      reject(
        new DiapauseError(
          'HYPERVISOR_SPAWN',
          `QEMU could not be started through setpriv (Debian package util-linux): ${cause.message}`,
          { cause }
        )
      )
    )
  })
  const { pid } = child
  if (pid === undefined) throw new DiapauseError('HYPERVISOR_SPAWN', 'QEMU was started but has no process id')
  return { pid, exited, kill: () => void child.kill('SIGKILL') }
}

/** Read each time, two small files: an operator may change the one while a peer runs. */
export function ownPrivileges(): Privileges {
  return { status: readFileSync('/proc/self/status', 'latin1'), userfaultfdForAll: setting() !== '0' }
}

/** '' where the kernel is older than the setting (5.2), and gives a userfaultfd to all. */
function setting(): string {
  try {
    return readFileSync('/proc/sys/vm/unprivileged_userfaultfd', 'latin1').trim()
  } catch {
    return ''
  }
}
