/** `diapause vm list`: all VMs of the cluster, where they run, how old what would be restored is, and what that would mean. Pure. */
import type { VmOutlook } from '../../protocols/overview/outlook.ts'
import type { Overview } from './overview-view.ts'
import { obstacleText } from './format-places.ts'
import { drillMark, durationText, table } from './format.ts'

/** A VM as `--json` has it. `epoch` 0: none is committed yet. */
export interface ListedVm {
  readonly vm: string
  readonly group: string
  readonly host: string
  readonly state: string
  readonly memoryMiB: number
  readonly cpus: number
  readonly epoch: number
  readonly epochAgeMs: number | null
  readonly outlook: VmOutlook | null
}

export function listedVms({ members, groups, vms, nowMs }: Overview): ListedVm[] {
  const names = new Map(members.map(({ id, name }) => [id, name]))
  const groupOf = new Map(groups.map(group => [group.id, group]))
  return vms.map(({ vm, group, owner, state, memoryMiB, cpus, outlook }) => {
    const { epoch = 0, committedMs } = groupOf.get(group) ?? {}
    return {
      vm,
      group,
      host: names.get(owner) ?? owner,
      state,
      memoryMiB,
      cpus,
      epoch,
      // Clocks of hosts differ: an age below nothing is none.
      epochAgeMs: committedMs === undefined ? null : Math.max(0, nowMs - committedMs),
      outlook: outlook ?? null
    }
  })
}

/** `groups`: what became of their last drills stands below. */
export function vmListText(vms: readonly ListedVm[], groups: Overview['groups'] = []): string {
  if (vms.length === 0) return 'no VMs; define some: diapause vm define FILE'
  const rows = vms.map(listed => {
    const { vm, group, host, state, memoryMiB, cpus, epoch, epochAgeMs } = listed
    const age = epochAgeMs === null ? '' : `, ${durationText(epochAgeMs)} ago`
    return [
      vm,
      group,
      host,
      state,
      `${memoryMiB} MiB`,
      `${cpus}`,
      epoch === 0 ? 'none yet' : `${epoch}${age}`,
      outlookText(listed)
    ]
  })
  const head = ['vm', 'group', 'host', 'state', 'memory', 'cpus', 'epoch', 'if its host died now']
  const drilled = groups.flatMap(group => (drillMark(group) === '' ? [] : [`group ${group.id}${drillMark(group)}`]))
  return [...table([head, ...rows]), ...drilled].join('\n')
}

function outlookText({ vm, host, state, epoch, outlook }: ListedVm): string {
  if (state === 'resting') return 'nothing: its group rests'
  if (outlook === null) return 'not known'
  const { backMs, never, why, lossMs, missed } = outlook
  const after = backMs === null ? '' : ` in about ${durationText(backMs)}`
  const back = backMs === null ? 'back, when was not measured' : `back${after}`
  const comes = epoch === 0 ? `boots anew${after}` : back
  const loss = epoch === 0 ? 'all is lost' : `losing ${durationText(lossMs)}`
  const over = missed.length > 0 ? ' (OVER ITS OBJECTIVE)' : ''
  return `${never ? `NOT BACK: ${obstacleText(why, host, vm)}` : comes}, ${loss}${over}`
}
