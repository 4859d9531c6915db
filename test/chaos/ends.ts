/**
 * A peer that ends although nobody has ended it: started again a second later, it would be green with a crash in it. Its init has
 * killed it, or told it to stop. Else there has to be a fault on its host in the same round under which a peer may end rather than go
 * on with what it cannot trust; and then it says why, by an error of that fault: one that nobody has thought of has no code. A signal
 * but that of a kill is a crash whatever is wrong with its host. Pure.
 */
import type { Step } from './scenario.ts'

/** Of the registers: when they are opened and read, when they are written, and what is said of them while the peer ends. */
const REGISTER_CODES = [
  'REGISTER_STORE',
  'REGISTER_STORE_OPEN',
  'REGISTER_STORE_UNREADABLE',
  'REGISTER_STORE_CORRUPT',
  'REGISTER_STORE_LOST',
  'REGISTER_STORE_WRITE',
  'REGISTER_STORE_HANGS',
  'REGISTER_CORRUPT',
  'REGISTER_FORMAT',
  'REGISTER_VALUE',
  'REGISTER_STOPPED'
] as const

/** Of all else that a peer reads or writes before it serves (`node/composition/home.ts` and what is opened after it). */
const DISK_CODES = [
  ...REGISTER_CODES,
  'HOST_DISK',
  'DATA_DIR_UNUSABLE',
  'IDENTITY_INVALID',
  'CLUSTER_FILE',
  'SECRET_UNREADABLE',
  'SECRET_INVALID',
  'STORE_IO',
  'STORE_FULL',
  'STORE_LOCKED',
  'STORE_CLOSED',
  'STARTED_WRITE',
  'STARTED_CORRUPT',
  'HISTORY_WRITE',
  // A helper in C that it cannot keep; QEMUs of before that a disk does not let go.
  'HYPERVISOR_NATIVE',
  'HYPERVISOR_STALE'
] as const

/** And what it starts or listens with, for which the kernel has no room. */
const KERNEL_CODES = [
  ...DISK_CODES,
  'QEMU_UNKNOWN',
  'HYPERVISOR_SPAWN',
  'HYPERVISOR_TRACKING',
  'NIC_LISTEN',
  'LISTEN_FAILED',
  'API_SOCKET',
  'API_PORT'
] as const

/**
 * By faults of what a peer stores on, or of what the kernel gives it, the codes of errors that it may end with: it says why, and is
 * started until it can. Any other error that ends it (of its network, of who it is) is not of that fault.
 */
export const MAY_END: ReadonlyMap<string, ReadonlySet<string>> = new Map(
  Object.entries({
    'full-disk': DISK_CODES,
    'read-only-disk': DISK_CODES,
    'failing-disk': DISK_CODES,
    'hung-disk': DISK_CODES,
    'failing-fsync': DISK_CODES,
    'no-descriptors': KERNEL_CODES,
    'short-of-memory': KERNEL_CODES,
    'register-rot': REGISTER_CODES,
    'register-truncation': REGISTER_CODES
  }).map(([fault, codes]) => [fault, new Set<string>(codes)])
)

/** By which the kernel or a fault kills a peer without its init. */
const KILLS: ReadonlySet<string> = new Set(['kill-peer', 'short-of-memory'])

export interface End {
  /** "h1" */
  readonly host: string
  /** "SIGKILL", "exit code 1" */
  readonly how: string
  /** The code of the error that it ended with, as `lastCode` finds it. */
  readonly code: string | undefined
  /** Its init had told it to stop, or killed it. */
  readonly asked: boolean
}

/** `steps`: of the round that it is in. What a heal begins (reading again what was damaged) is over when the round is. */
export function unasked({ host, how, code, asked }: End, steps: readonly Step[]): string[] {
  const had = steps.filter(step => `h${step.host + 1}` === host).map(({ fault }) => fault)
  if (asked || (how === 'SIGKILL' && had.some(fault => KILLS.has(fault)))) return []
  const may = had.flatMap(fault => MAY_END.get(fault) ?? [])
  if (may.length === 0 || !/^exit code \d+$/.test(how)) return [`the peer of ${host} ended by itself: ${how}`]
  if (code === undefined) return [`the peer of ${host} ended by an error that it does not know: ${how}`]
  if (may.some(codes => codes.has(code))) return []
  return [`the peer of ${host} ended by an error that is of no fault of its host: ${how} [${code}]`]
}

/**
 * Of a peer's log: lines of JSON, and at the end of a run what Node says of what nobody has caught, or `diapause: what happened [CODE]`
 * with what to do below it (`node/edge/explain.ts`). Lines of JSON may come behind that: they wait for their turn (`log-output.ts`).
 * Undefined where it does not end with such an error.
 */
export function lastCode(log: string): string | undefined {
  const said = log.split('\n').filter(line => line !== '' && !line.startsWith('{') && !line.startsWith('  → '))
  return /^diapause: .*\[([A-Z][A-Z0-9_]*)\]$/.exec(said.at(-1) ?? '')?.[1]
}
