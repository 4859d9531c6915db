/** The decision log of all peers: why VMs were moved, or were not, and what stood in the way. The newest first. */
import { useMemo, useState } from 'preact/hooks'
import type { DecisionLine, DecisionList } from '../../edge/decisions-view.ts'
import { get } from '../live/http.ts'
import { hrefOf } from '../live/route.ts'
import { useRead } from '../live/resource.ts'
import { countOf, exactOf, shortMomentOf } from '../model/text.ts'
import { Filter, fits } from '../parts/filter.tsx'
import { Loaded, Panel } from '../parts/panel.tsx'
import { type Column, Table } from '../parts/table.tsx'
import { FailoverPanels } from './failover.tsx'

/** Facts come with events, which make it read at once; leases are renewed all the time. A guess. */
const EVERY_MS = 5_000

export function DecisionsView() {
  const read = useRead<DecisionList>('/v1/decisions?limit=500', EVERY_MS, () => get('/v1/decisions?limit=500'))
  return (
    <>
      <h1>Decisions</h1>
      <FailoverPanels />
      <Loaded read={read}>{list => <Decisions list={list} />}</Loaded>
    </>
  )
}

function Decisions({ list }: { list: DecisionList }) {
  const [filter, setFilter] = useState('')
  const nameOf = (id: string): string => list.names[id] ?? `…${id.slice(-6)}`
  const all = useMemo(() => list.decisions.toReversed(), [list])
  const rows = all.filter(line => fits(filter, [line.text, line.kind, line.group, line.vm, nameOf(line.by)]))
  return (
    <Panel
      title={countOf(rows.length, 'decision')}
      aside={<Filter label="Filter decisions" text={filter} setText={setFilter} />}
    >
      {list.silent.length > 0 && (
        <p class="fault">Not told by {list.silent.map(({ peer, why }) => `${nameOf(peer)} (${why})`).join(', ')}.</p>
      )}
      <Table
        label="Decisions, the newest first"
        rows={rows}
        columns={columnsOf(nameOf, list.nowMs)}
        keyOf={({ by, seq }) => `${by} ${seq}`}
        empty="Nothing was noted that bears on where VMs run."
        shown={20}
      />
    </Panel>
  )
}

const columnsOf = (nameOf: (id: string) => string, nowMs: number): readonly Column<DecisionLine>[] => [
  {
    id: 'time',
    title: 'Time',
    cell: ({ atMs }) => (
      <time class="mono" title={shortMomentOf(atMs, nowMs)}>
        {exactOf(atMs)}
      </time>
    )
  },
  { id: 'about', title: 'About', cell: line => <About line={line} nameOf={nameOf} />, minor: true },
  {
    id: 'text',
    title: 'Who does what, and why',
    cell: ({ by, text, times }) => (
      <span title={`${nameOf(by)} ${text}`}>
        <strong>{nameOf(by)}</strong> {text}
        {times > 1 && !text.includes(`${times} times`) && <span class="tag">{times} times</span>}
      </span>
    ),
    wide: true
  },
  { id: 'kind', title: 'Kind', cell: ({ kind }) => <code>{kind}</code>, by: ({ kind }) => kind, minor: true }
]

function About({ line: { group, vm, peer }, nameOf }: { line: DecisionLine; nameOf: (id: string) => string }) {
  if (group !== undefined && vm !== undefined) return <a href={hrefOf('vms', group, vm)}>{`${group}/${vm}`}</a>
  if (group !== undefined) return <a href={hrefOf('groups', group)}>{group}</a>
  return <span>{peer === undefined ? '' : nameOf(peer)}</span>
}
