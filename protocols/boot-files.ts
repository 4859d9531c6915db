/**
 * How specifications of VMs name what they boot from: by a path, at which each host that may run the VM has the file; or by
 * the file's content, which the cluster then keeps itself: whoever may run the VM fetches it from a member that has it. Pure.
 */
import type { VmSpec } from './group.ts'

const PREFIX = 'content:'

/** Of a kept file, at once; a shorter piece is its last. A message between peers has 8 MiB. A guess. */
export const PIECE_BYTES = 1 << 20
/** Beyond it no file is kept: it fits the memory of no small VM, and what a member sends must end somewhere. A guess. */
export const MAX_KEPT_BYTES = 1 << 30

/** Beyond it no more files are kept: whoever makes groups would fill the disks of all. A hundred kernels with their initrds; a guess. */
export const MAX_ALL_KEPT_BYTES = 16 * (1 << 30)

export const contentName = (hash: string): string => `${PREFIX}${hash}`

/** The hex SHA-256; undefined for a path. */
export function contentHash(path: string): string | undefined {
  const hash = path.startsWith(PREFIX) ? path.slice(PREFIX.length) : ''
  return /^[0-9a-f]{64}$/.test(hash) ? hash : undefined
}

/** What they boot from, each once. */
export const bootPaths = (vms: readonly Pick<VmSpec, 'kernel' | 'initrd'>[]): string[] => [
  ...new Set(vms.flatMap(({ kernel, initrd }) => [kernel, initrd]).filter(path => path !== undefined))
]

/** With other names for what it boots from, where there are. */
export function renamed(vm: VmSpec, nameOf: (path: string) => string | undefined): VmSpec {
  const { kernel, initrd, ...rest } = vm
  return {
    ...rest,
    ...(kernel !== undefined && { kernel: nameOf(kernel) ?? kernel }),
    ...(initrd !== undefined && { initrd: nameOf(initrd) ?? initrd })
  }
}
