/**
 * May the next peer be upgraded now? Pure: what all members say of themselves → a report. A cluster is upgraded one peer at a time:
 * each that stops is a host that is lost for a while, so none is to stop while another is missing or what is stored bears
 * fewer losses than it should.
 */
import type { Obstacle } from '../../protocols/overview/outlook.ts'
import type { Overview, OverviewMember } from './overview-view.ts'
import { plural } from './plural.ts'

/** Against the program that asks. `silent`: it did not say. */
export type Standing = 'same' | 'older' | 'newer' | 'silent'

export interface UpgradeReport {
  /** The version of the program that asks, which is what the cluster is to be upgraded to. */
  readonly program: string
  readonly members: readonly { readonly name: string; readonly version: string | null; readonly standing: Standing }[]
  /** Why no peer is to be stopped now; empty: one may be. */
  readonly waits: readonly string[]
  /** Which to upgrade next, and what runs there; null: no member is older. */
  readonly next: { readonly name: string; readonly vms: readonly string[] } | null
  /** Groups that rest, whose records a version without `vm stop` cannot read. */
  readonly resting: readonly string[]
}

export function upgradeReport(program: string, overview: Overview): UpgradeReport {
  const present = overview.members.filter(({ leaving }) => !leaving)
  const members = present.map(({ name, report }) => {
    const version = report?.version ?? null
    return { name, version, standing: version === null ? ('silent' as const) : standingOf(version, program) }
  })
  const vmsAt = ({ id }: OverviewMember): string[] =>
    overview.vms
      .filter(({ owner, state }) => owner === id && state !== 'resting')
      .map(({ group, vm }) => `${group}/${vm}`)
  // Those whose stop moves nothing come first, and who answers comes last: it is asked again.
  const [next] = present
    .filter((_, i) => members[i]?.standing === 'older')
    .sort((a, b) => Number(a.self) - Number(b.self) || vmsAt(a).length - vmsAt(b).length)
  return {
    program,
    members,
    waits: [...present.flatMap(waitsFor), ...groupsWithout(overview), ...(next ? lossOf(next, overview) : [])],
    next: next === undefined ? null : { name: next.name, vms: vmsAt(next) },
    resting: overview.groups.flatMap(({ id, resting }) => (resting ? [id] : []))
  }
}

function waitsFor({ name, liveness, connected, self, report, silent }: OverviewMember): string[] {
  if (!self && liveness !== 'alive') return [`${name} is ${liveness}: start it, or remove it`]
  if (!self && !connected)
    return [`${name} is alive, but the peer that answers has no connection to it: see to the network between them`]
  if (report === null) return [`${name} does not say what it is (${silent ?? 'no answer'})`]
  const { redundancy } = report
  if (redundancy === null || (redundancy.due === 0 && redundancy.exposed === 0)) return []
  const { exposed, due } = redundancy
  const bear = exposed === 1 ? 'bears fewer losses than it should' : 'bear fewer losses than they should'
  const what = `${plural(exposed, 'snapshot')} ${bear}, ${plural(due, 'column')} ${due === 1 ? 'is' : 'are'} due`
  return [`${name} says that ${what}: wait for repair, or ask for it (diapause repair)`]
}

/** What has no snapshot starts anew when its host stops. */
const groupsWithout = ({ groups, vms }: Overview): string[] =>
  groups
    .filter(({ id, epoch }) => epoch === 0 && vms.some(({ group }) => group === id))
    .map(({ id }) => `group ${id} has no snapshot yet: take one (diapause snapshot ${id})`)

/** What cannot be borne of the stop of `member`: VMs that no other host has room for, and a cluster that decides nothing. */
function lossOf({ id, name, votes }: OverviewMember, { members, vms }: Overview): string[] {
  const stuckBy = (kind: Obstacle['kind']): string[] =>
    vms.flatMap(({ group, vm, owner, outlook }) =>
      owner === id && outlook?.never === true && (outlook.why?.kind ?? 'no-room') === kind ? [`${group}/${vm}`] : []
    )
  const [stuck, unreadable] = [stuckBy('no-room'), stuckBy('columns')]
  const voters = members.filter(each => each.votes)
  const left = voters.filter(each => each.id !== id && (each.self || (each.liveness === 'alive' && each.connected)))
  const needed = Math.floor(voters.length / 2) + 1
  const room = `no other host has room for ${stuck.join(', ')}, so they would stand still while ${name} is stopped: make room (diapause plan)`
  const reads = `too few columns of images of ${unreadable.join(', ')} or their groups are on other hosts, so they would stand still while ${name} is stopped: bring hosts back, or let others rebuild them (diapause repair)`
  const decides = `without ${name} ${left.length} of ${voters.length} voters are there and ${needed} are needed, so nothing could be decided: let more vote (diapause invite --role witness)`
  return [
    ...(stuck.length === 0 ? [] : [room]),
    ...(unreadable.length === 0 ? [] : [reads]),
    ...(!votes || left.length >= needed ? [] : [decides])
  ]
}

/** Of `version` against `program`: MAJOR.MINOR.PATCH by numbers; what stands behind a hyphen or plus is passed over. */
export function standingOf(version: string, program: string): Exclude<Standing, 'silent'> {
  const [mine, theirs] = [program, version].map(text => (/^[\d.]+/.exec(text)?.[0] ?? '').split('.').map(Number))
  for (let i = 0; i < 3; i++) {
    const [a, b] = [mine?.[i] ?? 0, theirs?.[i] ?? 0]
    if (a !== b) return b < a ? 'older' : 'newer'
  }
  return 'same'
}
