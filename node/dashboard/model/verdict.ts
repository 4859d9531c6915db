/** How the cluster is, in one sentence, and what is wrong with it, the worst first. Pure. */
import type { Overview, OverviewVm } from '../../edge/overview-view.ts'
import { countOf, durationOf, listOf } from './text.ts'

export interface Reason {
  readonly tone: 'warn' | 'bad'
  readonly text: string
  /** Where in the page to look: parts of a route. */
  readonly at: readonly string[]
}

export interface Verdict {
  readonly tone: 'good' | 'warn' | 'bad'
  readonly text: string
  readonly reasons: readonly Reason[]
}

/** Names in one sentence; of more only how many. */
const NAMED = 4

const named = (names: readonly string[]): string =>
  names.length <= NAMED ? listOf(names) : `${names.slice(0, NAMED - 1).join(', ')} and ${names.length - NAMED + 1} more`

export function verdictOf(overview: Overview): Verdict {
  const reasons = [...ofVms(overview), ...ofMembers(overview), ...ofGroups(overview), ...ofRedundancy(overview)]
  const sorted = reasons.toSorted((a, b) => Number(b.tone === 'bad') - Number(a.tone === 'bad'))
  const worst = sorted[0]?.tone ?? 'good'
  return { tone: worst, text: textOf(overview, sorted), reasons: sorted }
}

function textOf({ vms: defined, members, code }: Overview, reasons: readonly Reason[]): string {
  const vms = defined.filter(({ state }) => state !== 'resting')
  const running = vms.filter(({ state }) => state === 'running').length
  const alive = members.filter(({ liveness }) => liveness === 'alive').length
  const [first] = reasons
  if (first !== undefined && first.tone === 'bad') return first.text
  const resting = defined.length - vms.length
  const none = resting > 0 ? `${allOf(resting, resting)} rest${one(resting)}` : 'No VMs are defined yet'
  const all = vms.length === 0 ? none : `${allOf(vms.length, running)} run${one(vms.length)}`
  if (first !== undefined) return `${all}. ${first.text}`
  const bears = code.tolerates > 0 ? `Any ${code.tolerates} of ${alive} members may vanish without loss` : ''
  return bears === '' ? `${all}.` : `${all}. ${bears}.`
}

const one = (count: number): string => (count === 1 ? 's' : '')

function allOf(count: number, running: number): string {
  if (running < count) return `${running} of ${countOf(count, 'VM')}`
  return count === 1 ? 'The VM' : `All ${countOf(count, 'VM')}`
}

const vmName = ({ group, vm }: OverviewVm): string => `${group}/${vm}`

function ofVms({ vms }: Overview): Reason[] {
  const reasons: Reason[] = []
  const of = (state: OverviewVm['state']): OverviewVm[] => vms.filter(vm => vm.state === state)
  const [lost, starting, unknown] = [of('lost'), of('starting'), of('unknown')]
  const at = ['vms']
  if (lost.length > 0) reasons.push({ tone: 'bad', text: `${named(lost.map(vmName))} lost their host.`, at })
  if (starting.length > 0) reasons.push({ tone: 'warn', text: `${named(starting.map(vmName))} on the way back.`, at })
  if (unknown.length > 0) {
    reasons.push({ tone: 'warn', text: `Nobody tells whether ${named(unknown.map(vmName))} run.`, at })
  }
  const stuckBy = (kind: string): OverviewVm[] =>
    vms.filter(({ outlook }) => outlook?.never === true && (outlook.why?.kind ?? 'no-room') === kind)
  const [homeless, unreadable, undecided] = [stuckBy('no-room'), stuckBy('columns'), stuckBy('no-majority')]
  if (homeless.length > 0) {
    reasons.push({ tone: 'warn', text: `No other host has room for ${named(homeless.map(vmName))}.`, at: ['groups'] })
  }
  if (unreadable.length > 0) {
    const text = `Without their hosts too few columns are left to bring ${named(unreadable.map(vmName))} back.`
    reasons.push({ tone: 'warn', text, at: ['groups'] })
  }
  if (undecided.length > 0) {
    const text = `Without their hosts no majority is left to bring ${named(undecided.map(vmName))} back.`
    reasons.push({ tone: 'warn', text, at: ['members'] })
  }
  const missing = vms.filter(({ outlook }) => outlook !== undefined && outlook.missed.length > 0 && !outlook.never)
  if (missing.length > 0) {
    const text = `${named(missing.map(vmName))} would miss ${missing.length === 1 ? 'its' : 'their'} objectives.`
    reasons.push({ tone: 'warn', text, at: ['vms'] })
  }
  return reasons
}

function ofMembers({ members }: Overview): Reason[] {
  const at = ['members']
  const of = (liveness: string): string[] => members.filter(m => m.liveness === liveness).map(({ name }) => name)
  const [dead, suspect] = [of('dead'), of('suspect')]
  const full = members.filter(({ freeBytes }) => freeBytes === 0).map(({ name }) => name)
  const reasons: Reason[] = []
  if (dead.length > 0) reasons.push({ tone: 'bad', text: `${named(dead)} ${dead.length > 1 ? 'are' : 'is'} dead.`, at })
  if (suspect.length > 0) {
    reasons.push({ tone: 'warn', text: `${named(suspect)} ${suspect.length > 1 ? 'are' : 'is'} suspected.`, at })
  }
  if (full.length > 0) reasons.push({ tone: 'bad', text: `The store of ${named(full)} is full.`, at })
  const votes = members.filter(member => member.votes)
  const voting = votes.filter(({ liveness }) => liveness === 'alive').length
  if (voting * 2 <= votes.length && votes.length > 0) {
    const text = `No majority: ${voting} of ${votes.length} voters answer, so nothing can be decided.`
    reasons.unshift({ tone: 'bad', text, at })
  }
  return reasons
}

function ofGroups({ groups }: Overview): Reason[] {
  return groups.flatMap(({ id, epoch, overdueMs, drills }): Reason[] => {
    const at = ['groups', id]
    const reasons: Reason[] = []
    if (epoch === 0) {
      reasons.push({ tone: 'warn', text: `${id} has no epoch yet: its VMs would boot anew.`, at })
    }
    if (overdueMs !== undefined) {
      const text = `${id} was saved last ${durationOf(overdueMs)} ago: a host's death would lose what its VMs did since.`
      reasons.push({ tone: 'bad', text, at })
    }
    if (drills?.last?.failed !== undefined) {
      const took = durationOf(drills.last.tookMs)
      reasons.push({ tone: 'warn', text: `The last drill of ${id} failed after ${took}: ${drills.last.failed}`, at })
    }
    return reasons
  })
}

function ofRedundancy({ members }: Overview): Reason[] {
  const told = members.flatMap(({ report }) => report?.redundancy ?? [])
  const exposed = Math.max(0, ...told.map(redundancy => redundancy.exposed))
  if (exposed === 0) return []
  const least = Math.min(...told.flatMap(({ tolerates }) => tolerates ?? []))
  const due = told.reduce((sum, redundancy) => sum + redundancy.due, 0)
  const work = due > 0 ? `; ${countOf(due, 'column')} to be rebuilt` : ''
  const images = `${countOf(exposed, 'image')} of VMs`
  const at = ['groups']
  if (least < 0) return [{ tone: 'bad', text: `${images} cannot be read now${work}.`, at }]
  const bears = least === 0 ? 'no further loss' : `the loss of ${countOf(least, 'more member')}`
  return [{ tone: 'warn', text: `${images} bear only ${bears}${work}.`, at }]
}
