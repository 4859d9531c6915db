/**
 * Control groups: less processor or memory for some processes, less of a disk. Of version 1 or 2, as the machine has them
 * (`group-files.ts`); whether it can is asked before a cluster starts.
 */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { hasCode, messageOf, UsageError } from '../../../node/errors.ts'
import { type Heal, nothing } from '../fault.ts'
import { filesOf, groupOf, type Hierarchy, hierarchyOf, type Limit, type Limited, placeOf } from './group-files.ts'
import { guarded } from './guard.ts'

let made = 0
const newName = (): string => `diapause-chaos-${process.pid}-${++made}`

/** What limits this here. UsageError CHAOS_GROUPS where nothing is mounted that could. */
export function hierarchyFor(of: Limited): Hierarchy {
  const found = hierarchyOf(of, readFileSync('/proc/mounts', 'utf8'))
  if (found !== undefined) return found
  throw cannot('no control groups are mounted', 'run  sudo mount -t cgroup2 none /sys/fs/cgroup')
}

/**
 * As a fault's `needs`: it can be limited here. In version 2 its controllers are on for groups at the root from now on, which
 * limits nobody. UsageError CHAOS_GROUPS with what to do.
 */
export const needsGroups = (of: Limited) => (): void => ready(hierarchyFor(of))

/** The same for one that is known. */
export function ready(hierarchy: Hierarchy): void {
  const above = groupOf(hierarchy, readFileSync('/proc/self/cgroup', 'utf8'))
  if (above === undefined || !existsSync(above))
    throw cannot(`this process's group is not below ${hierarchy.root}`, OUTSIDE)
  if (hierarchy.version === 2) for (const controller of hierarchy.controllers) enable(hierarchy.root, controller)
  const folder = placeOf(hierarchy, above, newName())
  try {
    mkdirSync(folder)
    rmdirSync(folder)
  } catch (error) {
    throw cannot(`${folder} cannot be made (${messageOf(error)})`, OUTSIDE)
  }
}

const OUTSIDE = 'run it as root and outside of containers, or give the container the groups of its host, writable'

/** So that groups below have it. UsageError CHAOS_GROUPS. */
export function enable(root: string, controller: string): void {
  const listed = (file: string): boolean =>
    readFileSync(join(root, file), 'utf8').trim().split(' ').includes(controller)
  if (!listed('cgroup.controllers'))
    throw cannot(
      `${root} has no controller ${controller}`,
      `boot with systemd.unified_cgroup_hierarchy=1 and without cgroup_disable=${controller}; ${OUTSIDE}`
    )
  if (listed('cgroup.subtree_control')) return
  try {
    writeFileSync(join(root, 'cgroup.subtree_control'), `+${controller}`)
  } catch (error) {
    throw cannot(`${controller} cannot be switched on below ${root} (${messageOf(error)})`, OUTSIDE)
  }
}

const cannot = (what: string, fix: string): UsageError =>
  new UsageError(
    'CHAOS_GROUPS',
    `${what}: ${fix}; or run scenarios without slow-disk, starved and short-of-memory, which need it`
  )

/**
 * Puts processes, and with them what they will start, into a group of their own, with a limit that holds for all of them
 * together. A heal puts those that live back. Processes that ended meanwhile do not matter.
 */
export function limit(what: Limit, pids: () => readonly number[]): Promise<Heal> {
  const hierarchy = hierarchyFor(what.of)
  return limitIn(hierarchy, filesOf(hierarchy.version, what), pids)
}

/** The same in a hierarchy that is known, with what is written to files of the group. */
export async function limitIn(
  hierarchy: Hierarchy,
  files: Readonly<Record<string, string>>,
  pids: () => readonly number[]
): Promise<Heal> {
  const first = pids()
  const above = first.map(pid => groupNow(hierarchy, pid)).find(found => found !== undefined)
  if (above === undefined) return nothing
  const folder = placeOf(hierarchy, above, newName())
  const moves = first.map(pid => `echo ${pid} > "$1/cgroup.procs" 2> /dev/null || true`)
  const act = ['mkdir "$1"', ...settings(files), ...moves].join('\n')
  const heal = await guarded({ act, undo: UNDO, args: [folder, above] })
  // What one of them had just started before it was moved was not.
  for (const pid of pids().filter(late => !first.includes(late)))
    await writeFile(join(folder, 'cgroup.procs'), String(pid)).catch((error: unknown) => {
      if (!hasCode(error, 'ESRCH')) throw error
    })
  return heal
}

/** Of $1. */
const settings = (files: Readonly<Record<string, string>>): string[] =>
  Object.entries(files).map(([name, value]) => `echo '${value}' > "$1/${name}"`)

/** Until nobody is left: they may start others meanwhile. One that is killed leaves its group only when it has ended. */
const UNDO = `
for turn in $(seq 500); do
  while read -r pid; do echo "$pid" > "$2/cgroup.procs"; done < "$1/cgroup.procs"
  rmdir "$1" && break
  sleep 0.02
done 2> /dev/null`

/** Undefined where the process is gone. */
function groupNow(hierarchy: Hierarchy, pid: number): string | undefined {
  try {
    return groupOf(hierarchy, readFileSync(`/proc/${pid}/cgroup`, 'utf8'))
  } catch (error) {
    if (hasCode(error, 'ENOENT') || hasCode(error, 'ESRCH')) return undefined
    throw error
  }
}

/**
 * A disk, "7:3", reads and writes so much a second: for everybody in version 1, whose root has limits, for these processes in
 * version 2.
 */
export async function slowDown(device: string, bytesPerSecond: number, pids: () => readonly number[]): Promise<Heal> {
  const hierarchy = hierarchyFor('disk')
  const files = (bytes: number) => filesOf(hierarchy.version, { of: 'disk', device, bytesPerSecond: bytes })
  if (hierarchy.version === 2) return await limitIn(hierarchy, files(bytesPerSecond), pids)
  const [act, undo] = [bytesPerSecond, 0].map(bytes => settings(files(bytes)).join('\n'))
  return await guarded({ act: act ?? '', undo: undo ?? '', args: [hierarchy.root] })
}
