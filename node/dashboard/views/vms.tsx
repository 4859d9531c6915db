/** The VMs of all groups: where each runs, how it is, what losing its host would mean. */
import { useState } from 'preact/hooks'
import type { Overview, OverviewVm } from '../../edge/overview-view.ts'
import { namesOf, useOverview } from '../live/cluster.ts'
import { hrefOf } from '../live/route.ts'
import { countOf, durationOf, memoryOf } from '../model/text.ts'
import { Filter, fits } from '../parts/filter.tsx'
import { Mark, type Tone } from '../parts/marks.tsx'
import { Loaded, Panel } from '../parts/panel.tsx'
import { type Column, Table } from '../parts/table.tsx'

export const stateTone: Readonly<Record<OverviewVm['state'], Tone>> = {
  running: 'good',
  starting: 'busy',
  lost: 'bad',
  unknown: 'warn',
  resting: 'none'
}

export function VmsView() {
  const read = useOverview()
  return (
    <>
      <h1>VMs</h1>
      <Loaded read={read}>{overview => <Vms overview={overview} />}</Loaded>
    </>
  )
}

function Vms({ overview }: { overview: Overview }) {
  const [filter, setFilter] = useState('')
  const nameOf = namesOf(overview)
  const rows = overview.vms.filter(({ group, vm, owner, state }) => fits(filter, [group, vm, nameOf(owner), state]))
  return (
    <Panel title={countOf(rows.length, 'VM')} aside={<Filter label="Filter VMs" text={filter} setText={setFilter} />}>
      <VmTable rows={rows} nameOf={nameOf} grouped shown={18} />
    </Panel>
  )
}

interface VmTableProps {
  readonly rows: readonly OverviewVm[]
  readonly nameOf: (id: string) => string
  /** With the group of each. */
  readonly grouped: boolean
  readonly shown: number
}

export const VmTable = ({ rows, nameOf, grouped, shown }: VmTableProps) => (
  <Table
    label="VMs"
    rows={rows}
    columns={columnsOf(nameOf, grouped)}
    keyOf={({ group, vm }) => `${group}/${vm}`}
    empty="No VMs here. Define some with: diapause vm define FILE"
    shown={shown}
  />
)

function columnsOf(nameOf: (id: string) => string, grouped: boolean): readonly Column<OverviewVm>[] {
  const group: Column<OverviewVm> = {
    id: 'group',
    title: 'Group',
    cell: ({ group: id }) => <a href={hrefOf('groups', id)}>{id}</a>,
    by: ({ group: id }) => id
  }
  return [
    {
      id: 'vm',
      title: 'VM',
      cell: ({ group: id, vm }) => <a href={hrefOf('vms', id, vm)}>{vm}</a>,
      by: ({ vm }) => vm
    },
    ...(grouped ? [group] : []),
    {
      id: 'state',
      title: 'State',
      cell: ({ state }) => <Mark tone={stateTone[state]}>{state}</Mark>,
      by: ({ state }) => state
    },
    { id: 'host', title: 'Runs on', cell: ({ owner }) => nameOf(owner), by: ({ owner }) => nameOf(owner) },
    {
      id: 'back',
      title: 'Back in',
      cell: vm => <BackCell vm={vm} />,
      by: ({ outlook }) => outlook?.backMs ?? -1,
      end: true
    },
    {
      id: 'loss',
      title: 'Would lose',
      cell: vm => <LossCell vm={vm} />,
      by: ({ outlook }) => outlook?.lossMs ?? -1,
      end: true
    },
    {
      id: 'memory',
      title: 'Memory',
      cell: ({ memoryMiB }) => memoryOf(memoryMiB),
      by: ({ memoryMiB }) => memoryMiB,
      end: true,
      minor: true
    },
    { id: 'cpus', title: 'CPUs', cell: ({ cpus }) => cpus, by: ({ cpus }) => cpus, end: true, minor: true },
    { id: 'capture', title: 'Cut by', cell: ({ capture }) => capture ?? '–', minor: true }
  ]
}

/** Why it would not. */
const NEVER = { 'no-room': 'no room', 'no-majority': 'no majority', columns: 'too few columns' } as const

/** How long until it runs again if its host died now, against its objective. */
export function BackCell({ vm: { outlook, objective } }: { vm: OverviewVm }) {
  if (outlook === undefined) return <span class="faint">–</span>
  if (outlook.never === true) return <Mark tone="bad">{NEVER[outlook.why?.kind ?? 'no-room']}</Mark>
  if (outlook.backMs === null) return <span class="faint">not measured</span>
  return <Judged ms={outlook.backMs} missed={outlook.missed.includes('backMs')} limitMs={objective?.backMs} />
}

/** How much of its work would be gone. */
export function LossCell({ vm: { outlook, objective } }: { vm: OverviewVm }) {
  if (outlook === undefined) return <span class="faint">–</span>
  return <Judged ms={outlook.lossMs} missed={outlook.missed.includes('lossMs')} limitMs={objective?.lossMs} />
}

function Judged({ ms, missed, limitMs }: { ms: number; missed: boolean; limitMs: number | undefined }) {
  const words = durationOf(ms)
  if (limitMs === undefined) return words
  const title = `objective: ${durationOf(limitMs)}`
  return (
    <span title={title}>
      <Mark tone={missed ? 'warn' : 'good'}>{words}</Mark>
      <span class="unseen">{missed ? ` over its ${title}` : ` within its ${title}`}</span>
    </span>
  )
}
