/** What the CLI prints about where members stand, and what may be lost there. Pure. */
import { removalText } from '../../protocols/membership/join.ts'
import type { Obstacle } from '../../protocols/overview/outlook.ts'
import type { CodeStatus } from './cluster-view.ts'
import type { MemberStatus, PeerStatus } from './view.ts'
import { plural } from './plural.ts'

export const lossText = (count: number): string => (count < 1 ? 'none' : `any ${count}`)

export const liveText = (count: number): string => (count === 1 ? '1 lives' : `${count} live`)

/** What is to be known first: a majority that is away, and groups whose VMs have lost their hosts. */
export function troubleText({
  members,
  groups,
  removed
}: Pick<PeerStatus, 'members' | 'groups' | 'removed'>): string[] {
  if (removed !== undefined) return [`REMOVED: ${removalText(removed)}`]
  const voters = members.filter(({ votes }) => votes)
  const live = voters.filter(({ liveness }) => liveness !== 'dead').length
  const without = `NO MAJORITY: of ${voters.length} voters ${liveText(live)}, so nothing is decided and no VM runs here until more do`
  const dead = new Map(members.flatMap(({ id, name, liveness }) => (liveness === 'dead' ? [[id, name]] : [])))
  const down = groups.flatMap(({ record: { id, vms, owners, resting } }) => {
    const lost = resting ? [] : vms.filter(vm => dead.has(owners[vm.id] ?? ''))
    const each = lost.map(vm => `${vm.id} (${dead.get(owners[vm.id] ?? '') ?? ''})`)
    return each.length === 0 ? [] : [`DOWN: group ${id}: hosts of VMs are dead: ${each.join(', ')}`]
  })
  return [...(2 * live <= voters.length ? [without] : []), ...down]
}

/** Somebody has said where it stands, or is full: worth a column. */
export const hasPlaces = (members: readonly MemberStatus[]): boolean => members.some(member => placeText(member) !== '')

/** Site, rack and host, as far as it has said so. */
export function placeText({ labels = {}, freeBytes }: MemberStatus): string {
  const path = [labels.site, labels.rack, labels.host].filter(label => label !== undefined)
  return [...(path.length === 0 ? [] : [path.join('/')]), ...(freeBytes === 0 ? ['full'] : [])].join(', ')
}

/** What may be lost of members, and of whole sites, racks and hosts, where there are labels. */
export function codeText({ k, m, storage, live = storage, tolerates, domains }: CodeStatus): string {
  const members =
    live === storage
      ? `${lossText(tolerates)} of ${plural(storage, 'storage member')} may vanish`
      : `${plural(storage, 'storage member')}, of which ${liveText(live)}: ${lossText(tolerates)} more may vanish`
  const may = domains.flatMap(({ level, tolerates: count, alone }) => {
    if (count > 0) return `, or any ${count === 1 ? level : `${count} ${level}s`}`
    return alone.length > 0 ? `, or ${level} ${alone.join(' or ')} alone` : []
  })
  const not = domains.filter(({ tolerates: count, alone }) => count < 1 && alone.length === 0)
  const but = not.length === 0 ? '' : `, but no whole ${not.map(({ level }) => level).join(' or ')}`
  return `new snapshots (k = ${k}, m = ${m}): ${members}${may.join('')}${but}`
}

/** Why `vm` would not come back if `host` died; no `vm`: some VM of a group. */
export function obstacleText(why: Obstacle | undefined, host: string, vm?: string): string {
  if (why?.kind === 'no-majority') {
    return `no majority of voters without ${host} (${why.live} of ${why.voters} would live)`
  }
  if (why?.kind !== 'columns') return 'no host has room for its group'
  const whose = why.vm === vm ? 'its' : `${why.vm}'s`
  return `${why.left} of ${whose} ${why.columns} columns would be at hand, it takes ${why.needs}`
}
