/**
 * The diagonal grid of an epoch: for each stream that an image leans on, its columns, a member each, and its diagonals, a
 * codeword each. A diagonal that is pointed at shows why a lost column costs each codeword one symbol and no more.
 */
import { useState } from 'preact/hooks'
import type { ColumnState, EpochGrid, GridColumn, GridImage, GridStream } from '../../edge/grid-view.ts'
import { get } from '../live/http.ts'
import { useRead } from '../live/resource.ts'
import { codewordOf, diagonalName, gridSummary, stateWords, symbolsOf } from '../model/grid.ts'
import { countOf } from '../model/text.ts'
import { Mark, type Tone } from '../parts/marks.tsx'
import { Loaded, Panel } from '../parts/panel.tsx'

/** The peer itself looks anew every ten seconds. */
const EVERY_MS = 5_000

const tones: Readonly<Record<ColumnState, Tone>> = {
  there: 'good',
  partly: 'warn',
  away: 'warn',
  repairing: 'busy',
  lost: 'bad'
}

export function GridPanel({ group, epoch }: { group: string; epoch: number }) {
  const path = `/v1/groups/${encodeURIComponent(group)}/epochs/${epoch}/grid`
  const read = useRead(`grid/${group}/${epoch}`, EVERY_MS, () => get<EpochGrid>(path))
  if (read.error?.code === 'EPOCH_NOT_KEPT') {
    return (
      <Panel title="Where it is stored">
        <p class="empty">This epoch is not kept any more: its columns are forgotten.</p>
      </Panel>
    )
  }
  return (
    <Panel
      title="Where it is stored"
      aside={read.data && <span class="faint">{gridSummary(read.data, Date.now())}</span>}
    >
      <Loaded read={read}>{grid => <Grid grid={grid} />}</Loaded>
    </Panel>
  )
}

function Grid({ grid }: { grid: EpochGrid }) {
  const [chosen, choose] = useState(0)
  const image = grid.images[chosen] ?? grid.images[0]
  const names = new Map(grid.members.map(({ id, name, standing }) => [id, { name, standing }]))
  const nameOf = (id: string): string => names.get(id)?.name ?? `…${id.slice(-6)}`
  return (
    <div class="inside grids">
      {grid.unreadable.map(({ image: name, why }) => (
        <p key={name} class="fault">
          {name.slice(0, 12)} cannot be read: {why}
        </p>
      ))}
      <div class="choices" role="group" aria-label="Image of which VM">
        {grid.images.map((each, at) => (
          <button key={each.vm} type="button" aria-pressed={each === image} onClick={() => choose(at)}>
            <Mark tone={imageTone(each)}>{each.vm}</Mark>
          </button>
        ))}
      </div>
      {image !== undefined && <Image image={image} nameOf={nameOf} />}
    </div>
  )
}

const imageTone = ({ tolerates, streams }: GridImage): Tone => {
  if (tolerates < 0) return 'bad'
  const least = Math.min(...streams.map(({ m }) => m))
  return tolerates < least ? 'warn' : 'good'
}

/** More than these are drawn when somebody asks for them. */
const SHOWN_STREAMS = 9

/** Its own and those that are not whole before others; in their order. */
function streamsOfNote(streams: readonly GridStream[]): readonly GridStream[] {
  const isHurt = ({ columns }: GridStream): boolean => columns.some(({ state }) => state !== 'there')
  const first = streams.filter((stream, at) => at === streams.length - 1 || isHurt(stream))
  const others = streams.filter(stream => !first.includes(stream))
  const shown = new Set([...first, ...others.toReversed()].slice(0, SHOWN_STREAMS))
  return streams.filter(stream => shown.has(stream))
}

function Image({ image, nameOf }: { image: GridImage; nameOf: (id: string) => string }) {
  const { vm, tolerates, streams } = image
  const [all, showAll] = useState(false)
  const shown = all ? streams : streamsOfNote(streams)
  const bears =
    tolerates < 0
      ? `The image of ${vm} cannot be read now.`
      : tolerates === 0
        ? `The image of ${vm} can be read and bears no further loss.`
        : `The image of ${vm} can be read; ${tolerates === 1 ? 'one more member' : `any ${tolerates} more members`} may vanish.`
  return (
    <>
      <p>
        <Mark tone={imageTone(image)}>{bears}</Mark>{' '}
        <span class="faint">
          {streams.length === 1
            ? 'It leans on its own stream alone.'
            : `It leans on ${streams.length} streams: its own, last, and older ones that hold pages which have not changed.`}
        </span>
      </p>
      <p class="legend">
        <span class="swatch accent">data</span>
        <span class="swatch odd">parity</span>
        <span class="swatch open busy">being rebuilt</span>
        <span class="swatch open warn">away or in part</span>
        <span class="swatch open bad">lost</span>
      </p>
      <div class="streams">
        {shown.map(stream => (
          <Stream key={stream.stream} stream={stream} own={stream === streams.at(-1)} nameOf={nameOf} />
        ))}
      </div>
      {shown.length < streams.length && (
        <button type="button" onClick={() => showAll(true)}>
          Show all {streams.length} streams
        </button>
      )}
    </>
  )
}

/** Of a stream: the rest is in its title. */
const MAX_NAME = 24

const CELL = 30
const GAP = 4

interface StreamProps {
  readonly stream: GridStream
  readonly own: boolean
  readonly nameOf: (id: string) => string
}

function Stream({ stream, own, nameOf }: StreamProps) {
  const { k, m, grids, columns } = stream
  const [diagonal, point] = useState<number | null>(null)
  const [width, height] = [columns.length * (CELL + GAP), (k + m) * (CELL + GAP) + 20]
  const word = diagonal === null ? undefined : codewordOf(stream, diagonal)
  return (
    <figure class="stream">
      <figcaption>
        <h3>
          <code title={stream.stream}>{stream.stream.slice(0, MAX_NAME)}</code>
          {own && <span class="tag">its own</span>}
        </h3>
        <span class="faint">{`${k} data and ${m} parity rows, ${countOf(grids, 'grid')}`}</span>
      </figcaption>
      <div class="scroll">
        <svg
          width={width}
          height={height}
          viewBox={`0 0 ${width} ${height}`}
          role="img"
          aria-label={`${columns.length} columns, ${columns.filter(({ state }) => state !== 'there').length} not there`}
          onMouseLeave={() => point(null)}
        >
          {columns.map(({ column, planned, state }) => (
            <text
              key={column}
              class={`holder ${state}`}
              x={column * (CELL + GAP) + CELL / 2}
              y="12"
              text-anchor="middle"
            >
              {nameOf(planned).slice(0, 5)}
            </text>
          ))}
          {symbolsOf(stream).map(({ column, row, diagonal: own, parity, state }) => (
            <g
              key={`${column} ${row}`}
              class={`cell ${state} ${parity ? 'parity' : 'data'} ${diagonal === null ? '' : diagonal === own ? 'on' : 'off'}`}
              onMouseEnter={() => point(own)}
              transform={`translate(${column * (CELL + GAP)} ${20 + row * (CELL + GAP)})`}
            >
              <rect width={CELL} height={CELL} rx="5" />
              <text x={CELL / 2} y={CELL / 2 + 4} text-anchor="middle">
                {diagonalName(own)}
              </text>
            </g>
          ))}
        </svg>
      </div>
      <p class="readout">
        {word === undefined || diagonal === null
          ? 'Each letter is a codeword. Point at one.'
          : `Codeword ${diagonalName(diagonal)}: ${word.there} of ${word.all} symbols there, ${word.needed} needed.`}
      </p>
      <ColumnList columns={columns} nameOf={nameOf} grids={grids} />
    </figure>
  )
}

/** The same in words: what is not there first. */
function ColumnList({
  columns,
  nameOf,
  grids
}: { columns: readonly GridColumn[] } & Pick<StreamProps, 'nameOf'> & { grids: number }) {
  const missing = columns.filter(({ state }) => state !== 'there')
  const where = ({ target, done }: GridColumn): string =>
    target === undefined
      ? ''
      : ` on ${nameOf(target)}${done === undefined ? '' : `, ${done} of ${countOf(grids, 'grid')}`}`
  return (
    <details>
      <summary>
        {missing.length === 0 ? 'All columns are there' : `${countOf(missing.length, 'column')} not there`}
      </summary>
      <table>
        <caption class="unseen">Columns of this stream</caption>
        <thead>
          <tr>
            <th scope="col">Column</th>
            <th scope="col">Planned on</th>
            <th scope="col">State</th>
            <th scope="col">Is on</th>
          </tr>
        </thead>
        <tbody>
          {[...missing, ...columns.filter(({ state }) => state === 'there')].map(column => (
            <tr key={column.column}>
              <th scope="row">{column.column}</th>
              <td>{nameOf(column.planned)}</td>
              <td>
                <Mark tone={tones[column.state]}>{stateWords[column.state] + where(column)}</Mark>
              </td>
              <td>{column.places.map(nameOf).join(', ')}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  )
}
