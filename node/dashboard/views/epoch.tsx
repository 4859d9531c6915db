/** One epoch: what it cost each VM, and where it is stored. */
import type { VmPast } from '../../edge/history-view.ts'
import { useHistory } from '../live/history.ts'
import { hrefOf } from '../live/route.ts'
import { type EpochRow, epochText, fine } from '../model/epochs.ts'
import { bytesOf, countOf } from '../model/text.ts'
import { Mark } from '../parts/marks.tsx'
import { Loaded, Panel } from '../parts/panel.tsx'
import { type Column, Table } from '../parts/table.tsx'
import { GridPanel } from './grid.tsx'
import { outcomeTone } from './timeline.tsx'

export function EpochPage({ group, epoch }: { group: string; epoch: number }) {
  const read = useHistory(group)
  const last = read.data?.rows.at(-1)?.epoch ?? 0
  return (
    <>
      <header class="head">
        <h1>
          <a href={hrefOf('groups', group)}>{group}</a> / epoch {epoch}
        </h1>
        <nav class="steps" aria-label="Other epochs">
          {epoch > 1 && <a href={hrefOf('groups', group, 'epochs', epoch - 1)}>← {epoch - 1}</a>}
          {epoch < last && <a href={hrefOf('groups', group, 'epochs', epoch + 1)}>{epoch + 1} →</a>}
        </nav>
      </header>
      <Loaded read={read}>{({ rows }) => <Costs row={rows.findLast(row => row.epoch === epoch)} />}</Loaded>
      <GridPanel group={group} epoch={epoch} />
    </>
  )
}

function Costs({ row }: { row: EpochRow | undefined }) {
  if (row === undefined) return <p class="empty">No peer remembers this epoch.</p>
  return (
    <Panel title="What it cost" aside={row.kept && <span class="tag">can be restored</span>}>
      <p class="inside">
        <Mark tone={outcomeTone[row.outcome]}>{epochText(row)}</Mark>
      </p>
      <Table
        label={`VMs of epoch ${row.epoch}`}
        rows={row.vms}
        columns={columns}
        keyOf={({ vm }) => vm}
        empty="Nobody who answers saw a VM of it."
        shown={10}
      />
    </Panel>
  )
}

const dash = <span class="faint">–</span>

const columns: readonly Column<VmPast>[] = [
  { id: 'vm', title: 'VM', cell: ({ vm }) => vm, by: ({ vm }) => vm },
  {
    id: 'pause',
    title: 'Stood still',
    cell: ({ pauseMs }) => (pauseMs === undefined ? dash : fine(pauseMs)),
    by: ({ pauseMs }) => pauseMs ?? -1,
    end: true
  },
  {
    id: 'changed',
    title: 'RAM changed',
    cell: ({ changedBytes }) => (changedBytes === undefined ? dash : bytesOf(changedBytes)),
    by: ({ changedBytes }) => changedBytes ?? -1,
    end: true
  },
  {
    id: 'stored',
    title: 'Stored, with parity',
    cell: ({ storedBytes }) => (storedBytes === undefined ? dash : bytesOf(storedBytes)),
    by: ({ storedBytes }) => storedBytes ?? -1,
    end: true
  },
  {
    id: 'flight',
    title: 'In flight',
    cell: ({ inFlight }) => (inFlight === undefined ? dash : countOf(inFlight, 'frame')),
    by: ({ inFlight }) => inFlight ?? -1,
    end: true
  }
]
