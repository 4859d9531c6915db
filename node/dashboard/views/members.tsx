/** The members: whether they live, what they give and store, what they say of themselves. */
import type { Overview, OverviewMember } from '../../edge/overview-view.ts'
import { useOverview } from '../live/cluster.ts'
import { bytesOf, countOf, durationOf, memoryOf } from '../model/text.ts'
import { Mark, Meter, type Tone } from '../parts/marks.tsx'
import { Loaded, Panel } from '../parts/panel.tsx'
import { type Column, Table } from '../parts/table.tsx'

export const livenessTone: Readonly<Record<OverviewMember['liveness'], Tone>> = {
  alive: 'good',
  suspect: 'warn',
  dead: 'bad'
}

export function MembersView() {
  const read = useOverview()
  return (
    <>
      <h1>Members</h1>
      <Loaded read={read}>{overview => <Members overview={overview} />}</Loaded>
    </>
  )
}

function Members({ overview }: { overview: Overview }) {
  const { members, code } = overview
  const columns = columnsOf(overview)
  const votes = members.filter(member => member.votes)
  const live = votes.filter(({ liveness }) => liveness !== 'dead').length
  const bears = live - Math.floor(votes.length / 2) - 1
  return (
    <>
      <Panel title={countOf(members.length, 'member')}>
        <Table
          label="Members"
          rows={members}
          columns={columns}
          keyOf={({ id }) => id}
          empty="No members."
          markOf={({ liveness }) => (liveness === 'dead' ? 'dim' : undefined)}
        />
      </Panel>
      <Panel title="What may vanish">
        <dl class="facts">
          <dt>Snapshots</dt>
          <dd>
            {`Any ${code.tolerates} of ${code.live ?? code.storage} storage members that live at once, by ${code.k} data and ${code.m} parity columns.`}
          </dd>
          <dt>Decisions</dt>
          <dd>
            {bears < 0
              ? `No majority: ${live} of ${votes.length} voters live, and nothing is decided.`
              : `Any ${bears} of ${live} voters that live: the others still decide.`}
          </dd>
          {code.domains.map(({ level, tolerates, alone }) => (
            <>
              <dt>{level}</dt>
              <dd>
                {tolerates > 0
                  ? `Any ${countOf(tolerates, level)} as a whole.`
                  : alone.length > 0
                    ? `Only ${alone.join(', ')} as a whole.`
                    : `No ${level} as a whole.`}
              </dd>
            </>
          ))}
        </dl>
      </Panel>
    </>
  )
}

function columnsOf({ vms, members }: Overview): readonly Column<OverviewMember>[] {
  const placed = members.some(({ labels }) => labels !== undefined && Object.keys(labels).length > 0)
  const runs = (id: string): number => vms.filter(vm => vm.owner === id && vm.state === 'running').length
  const place: Column<OverviewMember> = {
    id: 'place',
    title: 'Place',
    cell: ({ labels }) => [labels?.site, labels?.rack, labels?.host].filter(label => label !== undefined).join(' / ')
  }
  return [
    { id: 'name', title: 'Member', cell: nameCell, by: ({ name }) => name },
    { id: 'liveness', title: 'Health', cell: healthCell, by: ({ liveness }) => liveness },
    { id: 'vms', title: 'VMs', cell: ({ id }) => runs(id), by: ({ id }) => runs(id), end: true },
    { id: 'memory', title: 'Memory for VMs', cell: memoryCell, by: ({ usedMemoryMiB }) => usedMemoryMiB },
    {
      id: 'stored',
      title: 'Stored',
      end: true,
      cell: ({ report }) => (report === null ? '–' : bytesOf(report.store.bytes)),
      by: ({ report }) => report?.store.bytes ?? 0
    },
    {
      id: 'free',
      title: 'Free',
      end: true,
      cell: ({ freeBytes }) => (freeBytes === undefined ? '–' : freeBytes === 0 ? 'full' : `≥ ${bytesOf(freeBytes)}`),
      by: ({ freeBytes }) => freeBytes ?? 0
    },
    { id: 'repair', title: 'Repair', cell: repairCell, minor: true },
    ...(placed ? [{ ...place, minor: true }] : []),
    { id: 'role', title: 'Role', cell: ({ role, votes }) => (votes ? `${role}, votes` : role), minor: true },
    { id: 'clock', title: 'Clock', cell: clockCell, minor: true, end: true },
    {
      id: 'up',
      title: 'Up',
      cell: ({ report }) => (report === null ? '–' : durationOf(report.uptimeMs)),
      by: ({ report }) => report?.uptimeMs ?? 0,
      minor: true,
      end: true
    },
    { id: 'version', title: 'Version', cell: ({ report }) => report?.version ?? '–', minor: true },
    { id: 'hypervisor', title: 'Hypervisor', cell: ({ report }) => report?.hypervisor ?? '–', minor: true }
  ]
}

const nameCell = ({ name, self, id, address }: OverviewMember) => (
  <span title={`${id}\n${address}`}>
    {name}
    {self && <span class="tag">this one</span>}
  </span>
)

const healthCell = ({ liveness, silent, leaving }: OverviewMember) => (
  <Mark tone={livenessTone[liveness]}>
    {liveness}
    {leaving && <span class="tag">leaving</span>}
    {silent !== undefined && liveness === 'alive' && (
      <span class="tag" title={silent}>
        silent
      </span>
    )}
  </Mark>
)

function memoryCell({ usedMemoryMiB, vmMemoryMiB }: OverviewMember) {
  if (vmMemoryMiB === undefined) return usedMemoryMiB === 0 ? '–' : memoryOf(usedMemoryMiB)
  const words = `${memoryOf(usedMemoryMiB)} of ${memoryOf(vmMemoryMiB)}`
  return (
    <span class="metered">
      <Meter part={usedMemoryMiB} whole={vmMemoryMiB} label={words} />
      <span>{words}</span>
    </span>
  )
}

function repairCell({ report }: OverviewMember) {
  if (report === null || report.redundancy === null) return '–'
  const { due, repairedColumns, damaged } = report.redundancy
  if (due > 0) return <Mark tone="busy">{countOf(due, 'column')} due</Mark>
  if (damaged > 0) return <Mark tone="warn">{damaged} damaged</Mark>
  return <span class="faint">{repairedColumns === 0 ? 'none needed' : `${repairedColumns} rebuilt`}</span>
}

/** Clocks of hosts that agree this well need no word. As `CLOCK_TOLERANCE_MS` of the decision log. */
const CLOCK_TOLERANCE_MS = 100

function clockCell({ report }: OverviewMember) {
  if (report === null) return '–'
  const { aheadMs } = report
  if (Math.abs(aheadMs) <= CLOCK_TOLERANCE_MS) return <span class="faint">in step</span>
  return <Mark tone="warn">{`${durationOf(Math.abs(aheadMs))} ${aheadMs > 0 ? 'ahead' : 'behind'}`}</Mark>
}
