/** What happened at all peers, the newest first, as it comes. */
import { useMemo, useState } from 'preact/hooks'
import { useNames } from '../live/cluster.ts'
import { events } from '../live/feed.ts'
import { useValue } from '../live/store.ts'
import { type Happening, happeningOf } from '../model/happening.ts'
import { countOf, exactOf } from '../model/text.ts'
import { Filter, fits } from '../parts/filter.tsx'
import { Sign } from '../parts/marks.tsx'
import { Panel } from '../parts/panel.tsx'
import { type Column, Table } from '../parts/table.tsx'

export function useHappenings(): Happening[] {
  const all = useValue(events)
  const nameOf = useNames()
  const names = nameOf('') // a function of the overview: the list is made anew when events come
  return useMemo(() => all.map(event => happeningOf(event, nameOf)).reverse(), [all, names])
}

const columns: readonly Column<Happening>[] = [
  { id: 'time', title: 'Time', cell: ({ atMs }) => <time class="mono">{exactOf(atMs)}</time> },
  { id: 'at', title: 'Member', cell: ({ at }) => at },
  {
    id: 'text',
    title: 'What happened',
    cell: ({ tone, text }) => (
      <span class="mark" title={text}>
        <Sign tone={tone} />
        {text}
      </span>
    ),
    wide: true
  },
  { id: 'kind', title: 'Kind', cell: ({ kind }) => <code>{kind}</code>, minor: true }
]

export function EventsView() {
  const all = useHappenings()
  const [filter, setFilter] = useState('')
  const rows = filter === '' ? all : all.filter(({ text, at, kind }) => fits(filter, [text, at, kind]))
  return (
    <>
      <h1>Events</h1>
      <Panel
        title={countOf(rows.length, 'event')}
        aside={<Filter label="Filter events" text={filter} setText={setFilter} />}
      >
        <EventTable rows={rows} shown={20} />
      </Panel>
    </>
  )
}

export const EventTable = ({ rows, shown }: { rows: readonly Happening[]; shown: number }) => (
  <Table
    label="Events of all members, the newest first"
    rows={rows}
    columns={columns}
    keyOf={({ id }) => id}
    empty="Nothing has happened since the peers started."
    shown={shown}
  />
)
