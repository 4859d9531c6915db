/**
 * What a QEMU gives up before it reads the first byte of its guest, so that a guest that breaks out of it has little. Pure.
 *
 * System calls that it does not need, by QEMU's own filter (`-sandbox`) and by one of the library that is loaded into it
 * (`native/handoff.c`), which also closes its memory to others. Capabilities, by setpriv, which starts it anyway: it costs no process
 * more. And the peer's environment, which may hold credentials. What it keeps is the peer's user: files of that user it may open, and
 * the peer's API socket too (`protocols/threats/README.md`).
 */

/** Which QEMU is started, and what of this it stands. */
export interface QemuProgram {
  readonly path: string
  /** Its build has the filter of system calls. */
  readonly sandbox: boolean
  /** Capabilities are given up: not where `path` is a program of the operator's that needs some before it becomes QEMU. */
  readonly confined: boolean
  /** The library that is loaded into it; undefined: nobody could compile it. */
  readonly preload?: string | undefined
}

/**
 * Background snapshots and post-copy work under it: userfaultfd is not among what is denied. The contract suite runs with it.
 */
export const SANDBOX = ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'] as const

/** linux/capability.h: the bit, and the name that setpriv has for it. */
const BITS = { dac_override: 1n, dac_read_search: 2n, setpcap: 8n, net_admin: 12n, sys_ptrace: 19n } as const
type Capability = Exclude<keyof typeof BITS, 'setpcap'>

/**
 * Who gets a userfaultfd that tells of the kernel's own faults, which KVM's are: everybody (vm.unprivileged_userfaultfd is 1, or the
 * kernel is older than the setting); who may open /dev/userfaultfd (Linux 6.1), as this process may; or CAP_SYS_PTRACE alone.
 */
export type UserfaultfdFor = 'everybody' | 'who opens the device' | 'who may trace'

/** What a QEMU needs beside what all do. */
export interface Needs {
  /** It runs a guest, which is cut and restored by userfaultfd. */
  readonly userfaultfd: boolean
  /** It has files to open that its user may not. */
  readonly othersFiles: boolean
  /** A TAP device that may be of another user. */
  readonly tap: boolean
}

export interface Privileges {
  /** The text of /proc/self/status of this process. */
  readonly status: string
  readonly userfaultfd: UserfaultfdFor
}

/**
 * Flags of setpriv(1). Kept is what this QEMU needs: reading files that are not the user's own, for root, whose VMs' kernels and disks may
 * lie in somebody's home; and CAP_SYS_PTRACE where there is no userfaultfd without, by which VMs are cut and restored. `preloaded`: the
 * library is there that takes one from the device.
 */
export function privilegeFlags(privileges: Privileges, needs: Needs, preloaded: boolean): string[] {
  const { status } = privileges
  const effective = capabilitiesIn(status, 'CapEff')
  const ambient = capabilitiesIn(status, 'CapAmb')
  const wanted = wantedOf(privileges, needs, preloaded)
  const listed = (have: bigint): string =>
    ['-all', ...wanted.filter(name => has(have, name)).map(name => `+${name}`)].join(',')
  return [
    '--no-new-privs',
    // Those that a user other than root hands on.
    `--inh-caps=${listed(ambient)}`,
    `--ambient-caps=${listed(ambient)}`,
    // Root gets all of these with each program that it starts. Only who has CAP_SETPCAP may take any away (`keptUnasked`).
    ...(has(effective, 'setpcap') ? [`--bounding-set=${listed(effective)}`] : [])
  ]
}

function wantedOf({ status, userfaultfd }: Privileges, needs: Needs, preloaded: boolean): Capability[] {
  // Containers as a rule have the one that can do more, and not the other.
  const reading = has(capabilitiesIn(status, 'CapEff'), 'dac_read_search') ? 'dac_read_search' : 'dac_override'
  const wanted: (Capability | false)[] = [
    needs.othersFiles && reading,
    needs.userfaultfd && needsTracing(userfaultfd, preloaded) && 'sys_ptrace',
    needs.tap && 'net_admin'
  ]
  return wanted.filter(name => name !== false)
}

const needsTracing = (userfaultfd: UserfaultfdFor, preloaded: boolean): boolean =>
  userfaultfd === 'who may trace' || (userfaultfd === 'who opens the device' && !preloaded)

/** QEMU is given CAP_SYS_PTRACE, by which it may write the memory of every process of this host. */
export const mayTrace = ({ status, userfaultfd }: Privileges, preloaded: boolean): boolean =>
  has(capabilitiesIn(status, 'CapEff'), 'sys_ptrace') && needsTracing(userfaultfd, preloaded)

/**
 * How many capabilities QEMU has that it does not need: those of the bounding set, where the peer is root and has no CAP_SETPCAP,
 * as in a container that drops capabilities. setpriv does not say that it took none away.
 */
export function keptUnasked(privileges: Privileges, preloaded: boolean): number {
  const { status } = privileges
  const isRoot = /^Uid:\s*\d+\s+0\s/m.test(status)
  if (!isRoot || has(capabilitiesIn(status, 'CapEff'), 'setpcap')) return 0
  const needs = { userfaultfd: true, othersFiles: true, tap: false }
  const needed = wantedOf(privileges, needs, preloaded).reduce((set, name) => set | (1n << BITS[name]), 0n)
  return (capabilitiesIn(status, 'CapBnd') & ~needed).toString(2).replaceAll('0', '').length
}

/** Whether this process may read files that are not its user's: only then it matters whose files a QEMU opens. */
export const readsOthersFiles = ({ status }: Privileges): boolean => {
  const effective = capabilitiesIn(status, 'CapEff')
  return has(effective, 'dac_read_search') || has(effective, 'dac_override')
}

const has = (set: bigint, name: keyof typeof BITS): boolean => ((set >> BITS[name]) & 1n) === 1n

function capabilitiesIn(status: string, field: string): bigint {
  const digits = new RegExp(`^${field}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1]
  return digits === undefined ? 0n : BigInt(`0x${digits}`)
}

/** Variables without which a QEMU of the operator's own may not start: where programs and its own libraries and modules are. */
const VARIABLES = ['PATH', 'LD_LIBRARY_PATH', 'QEMU_MODULE_DIR'] as const

/** What is left of this process's environment. */
export function plainEnvironment(from: Readonly<Record<string, string | undefined>>): Record<string, string> {
  return Object.fromEntries(VARIABLES.flatMap(name => (from[name] === undefined ? [] : [[name, from[name]]])))
}
