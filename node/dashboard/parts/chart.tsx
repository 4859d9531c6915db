/** A chart by uPlot, in the colours of the page, as wide as its place. */
import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import { useValue } from '../live/store.ts'
import { colour, theme } from '../live/theme.ts'
import { stretchOf } from '../model/epochs.ts'
import { momentOf } from '../model/text.ts'

export interface Series {
  readonly label: string
  /** A colour of the style sheet, e.g. '--accent'. */
  readonly tint: string
  readonly kind: 'bars' | 'line'
}

export interface ChartProps {
  /** What it shows, in words. */
  readonly label: string
  /** Seconds since 1970, then one row of values for each of `series`. */
  readonly data: uPlot.AlignedData
  readonly series: readonly Series[]
  readonly height: number
  /** A number of the y axis, in words. */
  readonly words: (value: number) => string
  /** How far its lines may be apart; absent: as people count, by tens. */
  readonly steps?: number[] | undefined
  /** Whether times stand below it; of charts together, below the last. */
  readonly timed: boolean
  /** Charts with the same name show the same stretch of time and the same cursor. */
  readonly together: string
  /** At which epoch (index into `data`) the cursor is; null: at none. */
  readonly onPoint: (index: number | null) => void
  readonly onPick: (index: number) => void
  /** Indices that are marked at the foot, with a colour of the style sheet. */
  readonly marks: readonly { readonly index: number; readonly tint: string }[]
}

export function Chart(props: ChartProps) {
  const place = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot | undefined>(undefined)
  const latest = useRef(props)
  latest.current = props
  const mode = useValue(theme)
  useEffect(() => {
    const element = place.current
    if (element === null) return
    const begin = (): void => {
      plot.current?.destroy()
      plot.current = new uPlot(optionsOf(latest, element.clientWidth), latest.current.data, element)
    }
    begin()
    const resized = new ResizeObserver(() => {
      plot.current?.setSize({ width: element.clientWidth, height: latest.current.height })
    })
    resized.observe(element)
    const dark = matchMedia('(prefers-color-scheme: dark)')
    dark.addEventListener('change', begin)
    return () => {
      dark.removeEventListener('change', begin)
      resized.disconnect()
      plot.current?.destroy()
      plot.current = undefined
    }
  }, [mode])
  useEffect(() => {
    const chart = plot.current
    if (chart === undefined || chart.data === props.data) return
    // Who looks at a part of it goes on looking at that part.
    const { min, max } = chart.scales['x'] ?? {}
    const times = chart.data[0]
    const zoomed = min !== undefined && max !== undefined && (min > (times[0] ?? 0) || max < (times.at(-1) ?? 0))
    chart.setData(props.data, !zoomed)
    if (zoomed) chart.redraw()
  }, [props.data])
  return <div class="chart" ref={place} role="img" aria-label={props.label} style={{ height: `${props.height}px` }} />
}

function optionsOf(latest: { readonly current: ChartProps }, width: number): uPlot.Options {
  const { series, height, words, steps, timed, together } = latest.current
  const [ink, line] = [colour('--faint'), colour('--line')]
  const font = `11px ${getComputedStyle(document.body).fontFamily}`
  const axis: uPlot.Axis = { stroke: ink, font, grid: { stroke: line, width: 1 }, ticks: { show: false } }
  return {
    width,
    height,
    legend: { show: false },
    padding: [10, 8, 0, 0],
    cursor: {
      sync: { key: together },
      points: { show: false },
      drag: { x: true, y: false },
      bind: { click: (chart: uPlot) => pickOn(chart, latest) }
    },
    scales: {
      x: { time: true, range: (_, first, last) => stretchOf(first, last) },
      y: { range: (_, _min, max) => [0, (max > 0 ? max : 1) * 1.08] }
    },
    axes: [
      { ...axis, grid: { show: false }, size: timed ? 24 : 6, values: (_, at) => (timed ? timesOf(at) : []) },
      { ...axis, size: 62, values: (_, values) => values.map(words), ...(steps && { incrs: steps }) }
    ],
    series: [{}, ...series.map(seriesOf)],
    hooks: {
      setCursor: [(chart: uPlot) => latest.current.onPoint(chart.cursor.idx ?? null)],
      draw: [(chart: uPlot) => drawMarks(chart, latest.current.marks)]
    }
  }
}

/** '06:40', with seconds where they differ by less than minutes, with the day where they differ by days. */
function timesOf(seconds: readonly number[]): string[] {
  const apart = (seconds[1] ?? 0) - (seconds[0] ?? 0)
  return seconds.map(at => {
    const moment = momentOf(at * 1_000)
    return apart >= 86_400 ? moment.slice(5, 10) : moment.slice(11, apart < 60 ? 19 : 16)
  })
}

function seriesOf({ label, tint, kind }: Series): uPlot.Series {
  const stroke = colour(tint)
  if (kind === 'line') return { label, stroke, width: 1.25, points: { show: false } }
  const paths = uPlot.paths.bars?.({ size: [0.7, 10], align: 0 })
  return { label, stroke, fill: stroke, width: 0, points: { show: false }, ...(paths && { paths }) }
}

/** uPlot's own handler stays for the end of a drag, which is a click, too, and picks nothing. */
function pickOn(chart: uPlot, latest: { readonly current: ChartProps }) {
  let downX = 0
  chart.over.addEventListener('mousedown', event => (downX = event.clientX))
  return (event: MouseEvent): null => {
    const { idx } = chart.cursor
    if (Math.abs(event.clientX - downX) < 4 && typeof idx === 'number') latest.current.onPick(idx)
    return null
  }
}

function drawMarks(chart: uPlot, marks: ChartProps['marks']): void {
  const { ctx, bbox, data } = chart
  const ratio = devicePixelRatio
  for (const { index, tint } of marks) {
    const x = chart.valToPos(data[0][index] ?? 0, 'x', true)
    if (x < bbox.left || x > bbox.left + bbox.width) continue
    ctx.fillStyle = colour(tint)
    ctx.beginPath()
    const foot = bbox.top + bbox.height
    ctx.moveTo(x, foot - 8 * ratio)
    ctx.lineTo(x + 4 * ratio, foot)
    ctx.lineTo(x - 4 * ratio, foot)
    ctx.fill()
  }
}
