/** Who speaks with whom in a group, and who would start together: pure. */
import type { Told } from '../../protocols/decisions/facts.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { GroupGraph } from '../edge/graph-view.ts'
import { type TalksOf, waitsOf } from '../planning/communication.ts'
import { measuredParts } from '../planning/measured-parts.ts'
import { planRestoreLine } from '../planning/restore-line.ts'

export interface GraphFacts {
  readonly record: GroupRecord
  readonly talks: TalksOf
  /** VM → what was noted of it: how long it took to start the last time. */
  readonly told: Readonly<Record<string, readonly Told[]>>
  readonly togetherMs: number
  nameOf(peer: string): string
}

export function graphOf({ record, talks, told, togetherMs, nameOf }: GraphFacts): GroupGraph {
  const { id: group, vms, owners, committed } = record
  const ids = vms.map(({ id }) => id)
  const resumed = ids.flatMap(vm => {
    const { resumeMs } = measuredParts(told[vm] ?? [], vm)
    return resumeMs === undefined ? [] : [[vm, resumeMs] as const]
  })
  const waits = waitsOf(ids, talks)
  const line = planRestoreLine({ vms: ids, talks, readyMs: Object.fromEntries(resumed), togetherMs })
  const edges = ids.flatMap(from =>
    (talks[from] ?? [])
      .filter(({ vm }) => vm !== from && ids.includes(vm))
      .map(({ vm: to, network, sent, sentBytes, answers, answerMs }) => {
        const isWaited = waits.some(each => each.vm === from && each.waitsFor === to && each.network === network)
        return { from, to, network, sent, sentBytes, answers, answerMs, waits: isWaited }
      })
  )
  return {
    group,
    epoch: committed?.epoch ?? 0,
    vms: ids.map(vm => {
      const host = owners[vm] ?? ''
      return { vm, host, hostName: nameOf(host), told: talks[vm] !== undefined }
    }),
    edges: edges.sort((a, b) => compare(a.from, b.from) || compare(a.to, b.to) || compare(a.network, b.network)),
    together: line.together.map(({ starts, waits: reasons }) => ({
      starts: starts.map(start => ({ ...start, on: nameOf(owners[start.vm] ?? '') })),
      waits: reasons
    }))
  }
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
