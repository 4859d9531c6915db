/**
 * Control groups as files: where a controller is mounted, in which folder a group is made, and what is written to it, in
 * either version (kernel's documentation, `cgroup-v1/` and `cgroup-v2.rst`). Pure.
 */
import { join } from 'node:path'

/** For all processes of a group together. */
export type Limit =
  | { readonly of: 'cpu'; readonly quotaUs: number; readonly periodUs: number }
  | { readonly of: 'memory'; readonly bytes: number }
  /** Reads and writes each; `device`: "7:3". */
  | { readonly of: 'disk'; readonly device: string; readonly bytesPerSecond: number }
export type Limited = Limit['of']

export interface Hierarchy {
  readonly version: 1 | 2
  /** Where it is mounted. */
  readonly root: string
  /** That a group with this limit needs. */
  readonly controllers: readonly string[]
}

/** What is written late goes to the disk on behalf of its writer's group only where that has both (version 2). */
const CONTROLLERS: Readonly<Record<Limited, Readonly<Record<1 | 2, readonly string[]>>>> = {
  cpu: { 1: ['cpu'], 2: ['cpu'] },
  memory: { 1: ['memory'], 2: ['memory'] },
  disk: { 1: ['blkio'], 2: ['io', 'memory'] }
}

/** `mounts`: as /proc/mounts. Version 1 where it has the controller, since that is missing in version 2 then. Undefined: neither. */
export function hierarchyOf(of: Limited, mounts: string): Hierarchy | undefined {
  const all = mounts.split('\n').map(line => line.split(' '))
  const first = all.find(([, , type, options]) =>
    CONTROLLERS[of][1].every(name => type === 'cgroup' && options?.split(',').includes(name))
  )
  if (first?.[1] !== undefined) return { version: 1, root: first[1], controllers: CONTROLLERS[of][1] }
  const second = all.find(([, , type]) => type === 'cgroup2')
  return second?.[1] === undefined ? undefined : { version: 2, root: second[1], controllers: CONTROLLERS[of][2] }
}

/** Files of a group, and what is written to them. */
export function filesOf(version: 1 | 2, limit: Limit): Readonly<Record<string, string>> {
  switch (limit.of) {
    case 'cpu':
      return version === 1
        ? { 'cpu.cfs_period_us': `${limit.periodUs}`, 'cpu.cfs_quota_us': `${limit.quotaUs}` }
        : { 'cpu.max': `${limit.quotaUs} ${limit.periodUs}` }
    case 'memory':
      return { [version === 1 ? 'memory.limit_in_bytes' : 'memory.max']: `${limit.bytes}` }
    case 'disk': {
      const { device, bytesPerSecond } = limit
      if (version === 2) return { 'io.max': `${device} rbps=${bytesPerSecond} wbps=${bytesPerSecond}` }
      const value = `${device} ${bytesPerSecond}`
      return { 'blkio.throttle.read_bps_device': value, 'blkio.throttle.write_bps_device': value }
    }
  }
}

/** The folder of the group that a process is in, as its /proc/PID/cgroup says; undefined: that does not say. */
export function groupOf({ version, root, controllers }: Hierarchy, said: string): string | undefined {
  const lines = said.split('\n').map(line => /^(\d+):([^:]*):(\/.*)$/.exec(line) ?? [])
  const line = lines.find(([, id, names]) =>
    version === 2 ? id === '0' && names === '' : names?.split(',').includes(controllers[0] ?? '')
  )
  return line?.[3] === undefined ? undefined : join(root, line[3])
}

/**
 * Where a group is made for processes of the group `above`: below that in version 1, so that its limits go on; at the root in
 * version 2, where a group with processes may have none below it that limits something ("no internal processes").
 */
export function placeOf({ version, root }: Hierarchy, above: string, name: string): string {
  return join(version === 1 ? above : root, name)
}
