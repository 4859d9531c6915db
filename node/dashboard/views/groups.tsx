/** The groups; of one, its page or that of one of its epochs, as the address says. */
import type { Overview, OverviewGroup, OverviewVm } from '../../edge/overview-view.ts'
import { aheadOf, useOverview } from '../live/cluster.ts'
import { hrefOf, type Route } from '../live/route.ts'
import { countOf } from '../model/text.ts'
import { drillOf } from '../parts/drill.tsx'
import { Ago } from '../parts/marks.tsx'
import { Loaded, Panel } from '../parts/panel.tsx'
import { type Column, Table } from '../parts/table.tsx'
import { EpochPage } from './epoch.tsx'
import { GroupView } from './group.tsx'

/** `where`: behind '#/groups'. */
export function GroupsView({ where: [group, part, epoch] }: { where: Route }) {
  const read = useOverview()
  if (group !== undefined && part === 'epochs') return <EpochPage group={group} epoch={Number(epoch)} />
  if (group !== undefined) return <GroupView group={group} />
  return (
    <>
      <h1>Groups</h1>
      <Loaded read={read}>{overview => <GroupPanel overview={overview} aheadMs={aheadOf(read)} />}</Loaded>
    </>
  )
}

export function GroupPanel({ overview: { groups, vms }, aheadMs }: { overview: Overview; aheadMs: number }) {
  const columns: readonly Column<OverviewGroup>[] = [
    {
      id: 'group',
      title: 'Group',
      cell: ({ id }) => <a href={hrefOf('groups', id)}>{id}</a>,
      by: ({ id }) => id
    },
    {
      id: 'vms',
      title: 'VMs running',
      cell: group => runningOf(group, vms),
      end: true
    },
    {
      id: 'epoch',
      title: 'Last epoch',
      cell: ({ epoch, open }) => (
        <>
          {epoch === 0 ? 'none yet' : epoch}
          {open !== null && <span class="tag busy">{open} is being taken</span>}
        </>
      )
    },
    {
      id: 'age',
      title: 'Committed',
      cell: ({ committedMs }) => <Ago atMs={committedMs} aheadMs={aheadMs} />,
      by: ({ committedMs }) => committedMs ?? 0
    },
    { id: 'kept', title: 'Kept', cell: ({ kept }) => kept, by: ({ kept }) => kept, end: true, minor: true },
    { id: 'generation', title: 'Generation', cell: ({ generation }) => generation, end: true, minor: true },
    { id: 'drill', title: 'Last drill', cell: group => drillOf(group, aheadMs), minor: true }
  ]
  return (
    <Panel title={countOf(groups.length, 'group')}>
      <Table label="Groups" rows={groups} columns={columns} keyOf={({ id }) => id} empty="No groups yet." />
    </Panel>
  )
}

function runningOf({ id, resting }: OverviewGroup, vms: readonly OverviewVm[]): string {
  if (resting) return 'rests'
  const mine = vms.filter(({ group }) => group === id)
  return `${mine.filter(({ state }) => state === 'running').length} of ${mine.length}`
}
