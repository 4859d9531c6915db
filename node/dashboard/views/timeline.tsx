/** The epochs of a group in time: pause, skew, size and outcome of each, as a chart and as a table. */
import { useMemo, useState } from 'preact/hooks'
import { type History, useHistory } from '../live/history.ts'
import { goTo, hrefOf } from '../live/route.ts'
import { type EpochRow, epochText, fine, timelineText } from '../model/epochs.ts'
import { bytesOf, countOf, durationOf, momentOf, shortMomentOf } from '../model/text.ts'
import { Chart, type Series } from '../parts/chart.tsx'
import { Mark, type Tone } from '../parts/marks.tsx'
import { Loaded, Panel } from '../parts/panel.tsx'
import { type Column, Table } from '../parts/table.tsx'

export const outcomeTone: Readonly<Record<EpochRow['outcome'], Tone>> = {
  committed: 'good',
  open: 'busy',
  aborted: 'bad',
  unknown: 'none'
}

export function Timeline({ group }: { group: string }) {
  const read = useHistory(group)
  return (
    <Loaded read={read}>
      {history =>
        history.rows.length === 0 ? (
          <Panel title="Epochs">
            <p class="empty">No epoch was taken yet.</p>
          </Panel>
        ) : (
          <Epochs group={group} history={history} />
        )
      }
    </Loaded>
  )
}

function Epochs({ group, history: { rows, silent } }: { group: string; history: History }) {
  const aborted = rows.filter(({ outcome }) => outcome === 'aborted').length
  const newestFirst = useMemo(() => rows.toReversed(), [rows])
  const aside = (
    <span class="faint">
      {aborted === 0 ? 'none aborted' : `${aborted} aborted`}
      {silent > 0 && `, ${countOf(silent, 'member')} did not tell`}
    </span>
  )
  return (
    <Panel title={countOf(rows.length, 'epoch')} aside={aside}>
      <Charts group={group} rows={rows} />
      <Table
        label={`Epochs of ${group}, the newest first`}
        rows={newestFirst}
        columns={columnsOf(group)}
        keyOf={({ key }) => key}
        empty="No epoch was taken yet."
        shown={12}
      />
    </Panel>
  )
}

const times: readonly Series[] = [
  { label: 'longest pause', tint: '--accent', kind: 'bars' },
  { label: 'skew', tint: '--colour-odd', kind: 'line' }
]
const sizes: readonly Series[] = [{ label: 'stored', tint: '--busy', kind: 'bars' }]

/** Bytes are counted by powers of two. */
const powers = Array.from({ length: 50 }, (_, power) => 2 ** power)

function Charts({ group, rows }: { group: string; rows: readonly EpochRow[] }) {
  const [point, setPoint] = useState<number | null>(null)
  const shown = useMemo(() => rows.filter(({ atMs }) => atMs !== undefined), [rows])
  const { time, size, marks } = useMemo(() => chartData(shown), [shown])
  const pick = (index: number): void => {
    const row = shown[index]
    if (row !== undefined) goTo('groups', group, 'epochs', row.epoch)
  }
  const row = point === null ? undefined : shown[point]
  const common = { together: `epochs/${group}`, onPoint: setPoint, onPick: pick }
  return (
    <div class="charts">
      <p class="legend">
        <span class="swatch accent">longest pause of a VM</span>
        <span class="swatch odd">skew of the cuts</span>
        <span class="swatch busy">stored</span>
        <span class="swatch bad">aborted</span>
      </p>
      <Chart
        {...common}
        label={`Pauses and skew: ${timelineText(shown)}`}
        data={time}
        series={times}
        height={170}
        words={ms => (ms >= 1_000 ? durationOf(ms) : `${ms} ms`)}
        marks={marks}
        timed={false}
      />
      <Chart
        {...common}
        label="Bytes stored"
        data={size}
        series={sizes}
        height={110}
        words={bytesOf}
        steps={powers}
        marks={[]}
        timed
      />
      <p class="readout">
        {row === undefined
          ? 'Point at an epoch for its numbers; drag to look closer, twice to see all.'
          : epochText(row)}
      </p>
    </div>
  )
}

function chartData(rows: readonly EpochRow[]) {
  const at = rows.map(({ atMs = 0 }) => atMs / 1_000)
  const of = (name: 'pauseMs' | 'skewMs' | 'storedBytes') => rows.map(row => row[name] ?? null)
  const marks = rows.flatMap(({ outcome }, index) => (outcome === 'aborted' ? [{ index, tint: '--bad' }] : []))
  type Data = [number[], ...(number | null)[][]]
  const time: Data = [at, of('pauseMs'), of('skewMs')]
  const size: Data = [at, of('storedBytes')]
  return { time, size, marks }
}

function columnsOf(group: string): readonly Column<EpochRow>[] {
  const optional = <T,>(value: T | undefined, words: (value: T) => string) =>
    value === undefined ? <span class="faint">–</span> : words(value)
  return [
    {
      id: 'epoch',
      title: 'Epoch',
      cell: ({ epoch }) => <a href={hrefOf('groups', group, 'epochs', epoch)}>{epoch}</a>
    },
    {
      id: 'at',
      title: 'Opened',
      cell: ({ atMs }) => <span title={optionalTitle(atMs)}>{optional(atMs, at => shortMomentOf(at, Date.now()))}</span>
    },
    { id: 'outcome', title: 'Outcome', cell: outcomeCell, by: ({ outcome }) => outcome },
    {
      id: 'pause',
      title: 'Longest pause',
      cell: ({ pauseMs, slowest }) => <span title={slowest}>{optional(pauseMs, fine)}</span>,
      by: ({ pauseMs }) => pauseMs ?? -1,
      end: true
    },
    {
      id: 'skew',
      title: 'Skew',
      cell: ({ skewMs }) => optional(skewMs, fine),
      by: ({ skewMs }) => skewMs ?? -1,
      end: true,
      minor: true
    },
    {
      id: 'took',
      title: 'Took',
      cell: ({ tookMs }) => optional(tookMs, durationOf),
      by: ({ tookMs }) => tookMs ?? -1,
      end: true,
      minor: true
    },
    {
      id: 'changed',
      title: 'Changed',
      cell: ({ changedBytes }) => optional(changedBytes, bytesOf),
      by: ({ changedBytes }) => changedBytes ?? -1,
      end: true,
      minor: true
    },
    {
      id: 'stored',
      title: 'Stored',
      cell: ({ storedBytes }) => optional(storedBytes, bytesOf),
      by: ({ storedBytes }) => storedBytes ?? -1,
      end: true
    },
    {
      id: 'flight',
      title: 'In flight',
      cell: ({ inFlight }) => optional(inFlight, String),
      by: ({ inFlight }) => inFlight ?? -1,
      end: true,
      minor: true
    },
    { id: 'policy', title: 'By', cell: ({ cause }) => <span title={cause?.why}>{cause?.policy}</span>, minor: true }
  ]
}

const optionalTitle = (atMs: number | undefined): string | undefined =>
  atMs === undefined ? undefined : momentOf(atMs)

const outcomeCell = ({ outcome, why, kept, committed, holds }: EpochRow) => (
  <>
    <span title={why}>
      <Mark tone={outcomeTone[outcome]}>{outcome}</Mark>
    </span>
    {committed ? <span class="tag">newest</span> : kept && <span class="tag">kept</span>}
    {holds.map(name => (
      <span key={name} class="tag busy">
        {name}
      </span>
    ))}
  </>
)
