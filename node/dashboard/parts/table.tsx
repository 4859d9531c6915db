/**
 * A real table that stays quick with thousands of rows: only those in sight are in the page, and `aria-rowcount` tells a
 * screen reader of the others. Rows are of one height (`--row` of the style sheet), so where each one is needs no measuring; on a
 * narrow screen those with a text are higher, so that it is not cut off.
 */
import type { ComponentChildren } from 'preact'
import { useEffect, useMemo, useRef, useState } from 'preact/hooks'

export interface Column<Row> {
  readonly id: string
  readonly title: string
  readonly cell: (row: Row) => ComponentChildren
  /** What it is sorted by. Absent: it cannot be. */
  readonly by?: ((row: Row) => number | string) | undefined
  readonly end?: boolean | undefined
  /** Left out where the screen is narrow. */
  readonly minor?: boolean | undefined
  /** Takes the room that others leave; what does not fit is cut off, and its title has it. */
  readonly wide?: boolean | undefined
}

interface TableProps<Row> {
  /** What the table is of, for who does not see it. */
  readonly label: string
  readonly rows: readonly Row[]
  readonly columns: readonly Column<Row>[]
  readonly keyOf: (row: Row) => string
  readonly empty: string
  readonly markOf?: ((row: Row) => string | undefined) | undefined
  /** Rows in sight; with more the table scrolls by itself. */
  readonly shown?: number | undefined
}

/** As `--row`, before it is known. */
const ROW_PX = 36
/** Rows above and below those in sight: a flick of the wheel shows no gap. */
const SPARE_ROWS = 16
/** The rows in the page change when so many have gone by, not with each. */
const STEP_ROWS = 8

export function Table<Row>(props: TableProps<Row>) {
  const { label, columns, keyOf, empty, markOf, shown = 14 } = props
  const [order, setOrder] = useState<Order | undefined>()
  const rows = useMemo(() => sorted(props.rows, columns, order), [props.rows, columns, order])
  const scrolls = rows.length > shown + 4
  const { frame, from, to, rowPx } = useWindow(rows.length, shown, scrolls)
  if (rows.length === 0) return <p class="empty">{empty}</p>
  const tall = columns.some(({ wide }) => wide === true)
  return (
    <div
      class={`table ${scrolls ? 'scrolls' : ''} ${tall ? 'tall' : ''}`}
      ref={frame}
      role="region"
      aria-label={label}
      // oxlint-disable-next-line jsx-a11y/no-noninteractive-tabindex -- what scrolls must be reached by the keyboard
      tabIndex={0}
      style={scrolls ? { maxHeight: `${(shown + 1) * rowPx}px` } : {}}
    >
      <table aria-rowcount={rows.length + 1}>
        <caption class="unseen">{label}</caption>
        <thead>
          <tr aria-rowindex={1}>
            {columns.map(column => (
              <Head key={column.id} column={column} order={order} setOrder={setOrder} />
            ))}
          </tr>
        </thead>
        <tbody>
          <Gap px={from * rowPx} columns={columns.length} />
          {rows.slice(from, to).map((row, at) => (
            <Row key={keyOf(row)} row={row} columns={columns} index={from + at + 2} mark={markOf?.(row)} />
          ))}
          <Gap px={(rows.length - to) * rowPx} columns={columns.length} />
        </tbody>
      </table>
    </div>
  )
}

interface RowProps<Row> {
  readonly row: Row
  readonly columns: readonly Column<Row>[]
  /** For `aria-rowindex`: the head is 1. */
  readonly index: number
  readonly mark: string | undefined
}

/** While somebody scrolls, rows that stay in sight are what they were and cost nothing. */
function Row<Row>({ row, columns, index, mark }: RowProps<Row>) {
  return useMemo(
    () => (
      <tr aria-rowindex={index} class={mark}>
        {columns.map((column, at) => (
          <Cell key={column.id} column={column} row={row} first={at === 0} />
        ))}
      </tr>
    ),
    [row, columns, index, mark]
  )
}

function Cell<Row>({ column, row, first }: { column: Column<Row>; row: Row; first: boolean }) {
  const name = classOf(column)
  return first ? (
    <th scope="row" class={name}>
      {column.cell(row)}
    </th>
  ) : (
    <td class={name}>{column.cell(row)}</td>
  )
}

const Gap = ({ px, columns }: { px: number; columns: number }) =>
  px <= 0 ? null : (
    <tr class="gap" aria-hidden="true">
      <td colSpan={columns} style={{ height: `${px}px` }} />
    </tr>
  )

interface Order {
  readonly id: string
  readonly down: boolean
}

interface HeadProps<Row> {
  readonly column: Column<Row>
  readonly order: Order | undefined
  readonly setOrder: (order: Order | undefined) => void
}

function Head<Row>({ column, order, setOrder }: HeadProps<Row>) {
  const mine = order?.id === column.id ? order : undefined
  const sort = mine === undefined ? 'none' : mine.down ? 'descending' : 'ascending'
  if (column.by === undefined) {
    return (
      <th scope="col" class={classOf(column)}>
        {column.title}
      </th>
    )
  }
  const next = mine === undefined ? { id: column.id, down: false } : mine.down ? undefined : { ...mine, down: true }
  return (
    <th scope="col" class={classOf(column)} aria-sort={sort}>
      <button type="button" class="sort" onClick={() => setOrder(next)}>
        {column.title}
        <span aria-hidden="true">{mine === undefined ? '' : mine.down ? ' ↓' : ' ↑'}</span>
      </button>
    </th>
  )
}

const classOf = <Row,>({ end, minor, wide }: Column<Row>): string =>
  [end === true ? 'end' : '', minor === true ? 'minor' : '', wide === true ? 'wide' : '']
    .filter(name => name !== '')
    .join(' ')

function sorted<Row>(rows: readonly Row[], columns: readonly Column<Row>[], order: Order | undefined): readonly Row[] {
  const by = columns.find(({ id }) => id === order?.id)?.by
  if (by === undefined) return rows
  const sign = order?.down === true ? -1 : 1
  return rows.toSorted((a, b) => {
    const [left, right] = [by(a), by(b)]
    return sign * (left < right ? -1 : left > right ? 1 : 0)
  })
}

/** Which rows are in sight, [from, to), and how high one is. */
function useWindow(count: number, shown: number, scrolls: boolean) {
  const frame = useRef<HTMLDivElement>(null)
  const [{ top, rowPx }, set] = useState({ top: 0, rowPx: ROW_PX })
  useEffect(() => {
    const element = frame.current
    if (element === null || !scrolls) return
    const take = (): void => {
      const row = Number.parseFloat(getComputedStyle(element).getPropertyValue('--row')) || ROW_PX
      const now = { top: STEP_ROWS * Math.floor(element.scrollTop / row / STEP_ROWS), rowPx: row }
      set(old => (old.top === now.top && old.rowPx === now.rowPx ? old : now))
    }
    take()
    element.addEventListener('scroll', take, { passive: true })
    addEventListener('resize', take)
    return () => {
      element.removeEventListener('scroll', take)
      removeEventListener('resize', take)
    }
  }, [scrolls])
  if (!scrolls) return { frame, from: 0, to: count, rowPx }
  const last = Math.max(0, count - shown)
  const from = Math.max(0, Math.min(top, last) - SPARE_ROWS)
  return { frame, from, to: Math.min(count, Math.min(top, last) + shown + STEP_ROWS + SPARE_ROWS), rowPx }
}
