/** What the CLI prints for people. Pure: values in, lines out. */
import type { GroupRecord } from '../../protocols/group.ts'
import type { PeerEvent } from './events.ts'
import { codeText, hasPlaces, obstacleText, placeText, troubleText } from './format-places.ts'
import type { GroupStatus, PeerStatus } from './view.ts'

export function statusText(status: PeerStatus): string {
  const { frames, refused, store } = status
  const places = hasPlaces(status.members)
  return [
    ...troubleText(status),
    `peer ${status.name} of cluster ${status.cluster}, diapause ${status.version}, up ${durationText(status.uptimeMs)}`,
    `  ${status.id}, process ${status.pid}, ${status.hypervisor}`,
    ...captureText(status),
    '',
    ...table([
      ['member', 'role', 'vote', 'liveness', 'connected', 'address', ...(places ? ['place'] : [])],
      ...status.members.map(member => [
        member.name,
        member.role,
        member.votes ? 'yes' : 'no',
        member.liveness,
        member.id === status.id ? '(this peer)' : member.connected ? 'yes' : 'no',
        member.address,
        ...(places ? [placeText(member)] : [])
      ])
    ]),
    codeText(status.code),
    '',
    ...status.groups.flatMap(group => [...groupText(group, status), '']),
    `frames: ${frames.delivered} delivered, ${frames.heldEarly} held (early), ${frames.recordedInFlight} recorded (in flight), ` +
      `${frames.heldFenced} waited for a lease, ${frames.droppedUnknown} dropped (unknown)`,
    ...bridgeText(status),
    ...outputText(status),
    `refused, as of a generation that is over: ${refused.frames} frames, ${refused.reports} reports, ${refused.shards} shards, ` +
      `${refused.claims} claims of leases, ${refused.changes} changes of this peer`,
    ...redundancyText(status),
    ...standbysText(status),
    `store:  ${bytesText(store.bytes)} in ${store.streams} streams and ${store.manifests} manifests`
  ].join('\n')
}

/** Snapshots that bear fewer losses than they should, and how far repairs are. */
function redundancyText({ redundancy }: PeerStatus): string[] {
  if (redundancy === null) return []
  const { exposed, repaired, scrubbed } = redundancy
  const done = `repair: ${repaired.columns} columns (${bytesText(repaired.bytes)}) rebuilt here, ${repaired.due} due`
  return [
    ...exposed.map(
      ({ group, vm, epoch, missing, tolerates }) =>
        `EXPOSED: epoch ${epoch} of ${group}/${vm} lacks ${missing} columns and bears the loss of ${Math.max(0, tolerates)} members, fewer than it should`
    ),
    `${done}${repaired.failures === 0 ? '' : `, ${repaired.failures} tries failed`}`,
    ...(scrubbed === null
      ? []
      : [`scrub:  ${scrubbed.columns} columns read again in this pass, ${scrubbed.damaged} damaged`])
  ]
}

/** Standby copies, and why one is none. */
const standbysText = ({ standbys = [] }: PeerStatus): string[] =>
  standbys.map(({ group, vm, memoryMiB, state, epoch, why }) => {
    const words = [state, ...(epoch === undefined ? [] : [`epoch ${epoch}`]), `${memoryMiB} MiB`]
    return `standby of ${group}/${vm}: ${words.join(', ')}${why === undefined ? '' : ` (${why})`}`
  })

/** How VMs are cut; where that is not the best way, why. */
function captureText({ capture }: PeerStatus): string[] {
  if (capture === null) return []
  return [`  capture ${capture.mode}${capture.why === undefined ? '' : `: ${capture.why}`}`]
}

/** Where some group passes by this peer. */
function bridgeText({ frames, groups }: PeerStatus): string[] {
  if (!groups.some(({ record }) => record.openFlow)) return []
  return [
    `bridge: ${frames.bridgeUp} frames came up to this peer, ${frames.bridgeDown} went down, all others passed it`
  ]
}

/** Where some group waits with what it tells the outside. */
function outputText({ frames, groups }: PeerStatus): string[] {
  if (!groups.some(({ record }) => record.outputCommit)) return []
  return [
    `output: ${frames.outputWaiting} frames (${bytesText(frames.outputWaitingBytes)}) wait for their epoch, ` +
      `${frames.outputReleased} let out, ${frames.outputDiscarded} rolled back, ` +
      `longest wait ${durationText(frames.outputLongestMs)}`
  ]
}

function groupText(group: GroupStatus, status: PeerStatus): string[] {
  const { record, running, captures, leaseRemainingMs } = group
  const lease = leaseRemainingMs > 0 ? `, lease for ${Math.round(leaseRemainingMs)} ms` : ''
  const output = `${record.outputCommit ? ', output commit' : ''}${record.openFlow ? ', OpenFlow' : ''}`
  return [
    `group ${record.id}: ${record.resting ? 'RESTS, ' : ''}${epochText(record)}, generation ${record.generation}${output}${lease}`,
    ...table([
      ['vm', 'owner', 'memory', 'here'],
      ...record.vms.map(vm => [
        vm.id,
        nameOf(record.owners[vm.id], status),
        `${vm.memoryMiB} MiB`,
        running.includes(vm.id) ? `running, ${captures[vm.id]?.mode ?? 'not cut yet'}` : record.resting ? 'rests' : ''
      ])
    ]),
    ...outlookText(group, status.name),
    ...drillText(record, status),
    ...Object.entries(captures).flatMap(([vm, { why }]) =>
      why === undefined || why === status.capture?.why ? [] : [`  ${vm} is cut by streams of all its RAM: ${why}`]
    )
  ]
}

/** What it would mean for VMs that run here if this host died. */
function outlookText({ record, outlooks = {} }: GroupStatus, host: string): string[] {
  return Object.entries(outlooks).map(([vm, { backMs, never, why, lossMs, missed }]) => {
    const { objective } = record.vms.find(({ id }) => id === vm) ?? {}
    const over = (name: 'backMs' | 'lossMs'): string =>
      missed.includes(name) ? ` (OVER ITS OBJECTIVE of ${durationText(objective?.[name] ?? 0)})` : ''
    const after = backMs === null ? ' after a time not measured yet' : ` in about ${durationText(backMs)}`
    const back = `${record.committed === null ? 'boots anew' : 'back'}${after}`
    const loss = record.committed === null ? 'all is lost' : `losing ${durationText(lossMs)}`
    const comes = never ? `NOT BACK: ${obstacleText(why, host, vm)}` : back
    return `  if this host died now: ${vm} ${comes}${over('backMs')}, ${loss}${over('lossMs')}`
  })
}

/** What became of the last drill, in a list of groups. */
export function drillMark({ drills }: Pick<GroupRecord, 'drills'>): string {
  if (drills?.last === undefined) return ''
  return drills.last.failed === undefined ? ', last drill passed' : ', LAST DRILL FAILED'
}

/** When drills are due, and what became of the last. */
function drillText({ drills }: GroupRecord, status: PeerStatus): string[] {
  if (drills === undefined) return []
  const { schedule, last } = drills
  const every =
    schedule && `every ${durationText(schedule.everyMs)}${schedule.runs === undefined ? '' : ', one runs now'}`
  const how =
    last && (last.failed === undefined ? `passed after ${durationText(last.tookMs)}` : `FAILED: ${last.failed}`)
  const at =
    last &&
    `the last, ${new Date(last.atMs).toISOString()} on ${nameOf(last.by, status)} from epoch ${last.epoch}, ${how}`
  return [`  drills: ${[every ?? 'on request', ...(at === undefined ? [] : [at])].join('; ')}`]
}

function epochText(record: GroupRecord): string {
  const committed = record.committed === null ? 'nothing committed yet' : `epoch ${record.committed.epoch} committed`
  const kept = record.kept === undefined ? '' : `, ${record.kept.length} more kept`
  return record.open === null ? `${committed}${kept}` : `${committed}${kept}, epoch ${record.open.epoch} open`
}

const nameOf = (id: string | undefined, { members }: PeerStatus): string =>
  members.find(member => member.id === id)?.name ?? id ?? '-'

/** `12:00:01.123 epoch.committed group=bank epoch=3` in local time. */
export function eventText({ atMs, kind, ...fields }: PeerEvent): string {
  const at = new Date(atMs)
  const pad = (value: number, digits = 2): string => String(value).padStart(digits, '0')
  const time = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`
  const words = Object.entries(fields).map(([name, value]) => `${name}=${fieldText(value)}`)
  return [time, kind, ...words].join(' ')
}

function fieldText(value: unknown): string {
  if (typeof value === 'string' && /^[^\s"=]+$/.test(value)) return value
  if (typeof value === 'number' && !Number.isInteger(value)) return value.toFixed(1)
  return JSON.stringify(value) ?? 'undefined'
}

/** Left-aligned columns, two spaces before and between. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = []
  for (const row of rows) for (const [at, cell] of row.entries()) widths[at] = Math.max(widths[at] ?? 0, cell.length)
  return rows.map(row => `  ${row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join('  ')}`.trimEnd())
}

export function durationText(ms: number): string {
  const seconds = Math.floor(ms / 1000)
  if (seconds < 60) return `${(ms / 1000).toFixed(1)} s`
  const [days, hours, minutes] = [
    Math.floor(seconds / 86_400),
    Math.floor(seconds / 3_600) % 24,
    Math.floor(seconds / 60) % 60
  ]
  if (days > 0) return `${days} d ${hours} h`
  return hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min ${seconds % 60} s`
}

export function bytesText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10))
  return power === 0 ? `${bytes} B` : `${(bytes / 1024 ** power).toFixed(1)} ${units[power]}`
}
