/** One group: its epochs, its VMs and what losing a host would mean for them, who speaks with whom, and what may be done. */
import type { Overview, OverviewGroup } from '../../edge/overview-view.ts'
import { aheadOf, namesOf, useOverview } from '../live/cluster.ts'
import { hrefOf } from '../live/route.ts'
import { countOf, durationOf } from '../model/text.ts'
import { drillOf } from '../parts/drill.tsx'
import { Loaded, Panel } from '../parts/panel.tsx'
import { Actions } from './actions.tsx'
import { GraphPanel } from './graph.tsx'
import { Timeline } from './timeline.tsx'
import { VmTable } from './vms.tsx'

export function GroupView({ group }: { group: string }) {
  const read = useOverview()
  return (
    <Loaded read={read}>
      {overview => {
        const found = overview.groups.find(({ id }) => id === group)
        return found === undefined ? (
          <NoGroup group={group} />
        ) : (
          <Group overview={overview} group={found} aheadMs={aheadOf(read)} />
        )
      }}
    </Loaded>
  )
}

export const NoGroup = ({ group }: { group: string }) => (
  <>
    <h1>{group}</h1>
    <p class="empty">
      There is no group of this name. <a href={hrefOf()}>See all</a>
    </p>
  </>
)

function Group({ overview, group, aheadMs }: { overview: Overview; group: OverviewGroup; aheadMs: number }) {
  const schedule = group.drills?.schedule
  const vms = overview.vms.filter(vm => vm.group === group.id)
  return (
    <>
      <header class="head">
        <h1>
          {group.id}
          <small>{`generation ${group.generation}, epoch ${group.epoch === 0 ? 'none yet' : group.epoch}`}</small>
          {group.resting && <span class="tag">rests</span>}
          {group.outputCommit && <span class="tag">output commit</span>}
          {group.openFlow && <span class="tag">OpenFlow</span>}
        </h1>
        <Actions group={group.id} resting={group.resting === true} />
      </header>
      <p class="faint">
        {`${countOf(group.kept, 'epoch')} can be restored. Last drill: `}
        {drillOf(group, aheadMs)}
        {schedule !== undefined && `, due every ${durationOf(schedule.everyMs)}`}
      </p>
      <Timeline group={group.id} />
      <Panel title={`${countOf(vms.length, 'VM')}, and what losing their hosts would mean`}>
        <VmTable rows={vms} nameOf={namesOf(overview)} grouped={false} shown={12} />
      </Panel>
      <GraphPanel group={group.id} />
    </>
  )
}
