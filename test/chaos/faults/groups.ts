/** Control groups (version 1): less processor or memory for some processes, less of a disk for all. */
import { existsSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { hasCode, UsageError } from '../../../node/errors.ts'
import { type Heal, nothing } from '../fault.ts'
import { guarded } from './guard.ts'

const ROOT = '/sys/fs/cgroup'
let made = 0

/** Where writes to a device can be limited for everybody. UsageError CHAOS_GROUPS. */
export function throttleFolder(): string {
  const folder = join(ROOT, 'blkio')
  need(existsSync(join(folder, 'blkio.throttle.write_bps_device')), 'blkio')
  return folder
}

/**
 * Puts processes, and with them what they will start, into a group below the one they are in, with limits that hold for
 * all of them together. A heal puts those that live back. Processes that ended meanwhile do not matter.
 */
export async function limit(
  controller: 'cpu' | 'memory',
  limits: Readonly<Record<string, number>>,
  pids: () => readonly number[]
): Promise<Heal> {
  need(existsSync(join(ROOT, controller, 'cgroup.procs')), controller)
  const first = pids()
  const above = first.map(pid => groupOf(controller, pid)).find(found => found !== undefined)
  if (above === undefined) return nothing
  const folder = join(ROOT, controller, above, `diapause-chaos-${process.pid}-${++made}`)
  const settings = Object.entries(limits).map(([name, value]) => `echo ${value} > "$1/${name}"`)
  const act = ['mkdir "$1"', ...settings, ...first.map(pid => `echo ${pid} > "$1/cgroup.procs" 2> /dev/null || true`)]
  const heal = await guarded({ act: act.join('\n'), undo: UNDO, args: [folder] })
  // What one of them had just started before it was moved was not.
  for (const pid of pids().filter(late => !first.includes(late)))
    await writeFile(join(folder, 'cgroup.procs'), String(pid)).catch((error: unknown) => {
      if (!hasCode(error, 'ESRCH')) throw error
    })
  return heal
}

/** Until nobody is left: they may start others meanwhile. One that is killed leaves its group only when it has ended. */
const UNDO = `
for turn in $(seq 500); do
  while read -r pid; do echo "$pid" > "$1/../cgroup.procs"; done < "$1/cgroup.procs"
  rmdir "$1" && break
  sleep 0.02
done 2> /dev/null`

/** "/" or below; undefined where the process is gone. */
function groupOf(controller: string, pid: number): string | undefined {
  try {
    const lines = readFileSync(`/proc/${pid}/cgroup`, 'utf8').split('\n')
    const line = lines.map(each => each.split(':')).find(([, names]) => names?.split(',').includes(controller))
    return line?.[2]
  } catch (error) {
    if (hasCode(error, 'ENOENT') || hasCode(error, 'ESRCH')) return undefined
    throw error
  }
}

function need(there: boolean, controller: string): void {
  if (there) return
  throw new UsageError(
    'CHAOS_GROUPS',
    `no control groups of version 1 with ${controller} below ${ROOT}: boot with systemd.unified_cgroup_hierarchy=0, or leave out the faults slow-disk, starved and short-of-memory`
  )
}
