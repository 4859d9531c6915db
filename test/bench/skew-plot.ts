/** Curves in a grid of panels, as SVG. Pure. */

export interface Curve {
  readonly name: string
  readonly color: string
  /** x, y in the panel's units; drawn as steps. */
  readonly points: readonly (readonly [number, number])[]
  /** Drawn as crosses on the curve's colour. */
  readonly marks: readonly (readonly [number, number])[]
}

export interface Panel {
  readonly title: string
  readonly fromX: number
  readonly toX: number
  /** Of upright lines. */
  readonly events: readonly { readonly x: number; readonly name: string }[]
  readonly curves: readonly Curve[]
}

export interface Plot {
  readonly title: string
  /** What the crosses are. */
  readonly marks: string
  readonly x: string
  readonly y: string
  readonly rows: readonly (readonly Panel[])[]
}

const PANEL = { width: 330, height: 170 }
const MARGIN = { left: 52, right: 12, top: 26, bottom: 34 }
const HEAD = 56
const FONT = 'font-family="sans-serif" font-size="11"'

export function plotSvg(plot: Plot): string {
  const columns = Math.max(1, ...plot.rows.map(row => row.length))
  const width = columns * PANEL.width
  const height = HEAD + plot.rows.length * PANEL.height
  const panels = plot.rows.flatMap((row, r) =>
    row.map((panel, c) => {
      const at = `translate(${c * PANEL.width},${HEAD + r * PANEL.height})`
      return `<g transform="${at}">${panelSvg(panel, plot)}</g>`
    })
  )
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" ${FONT}>`,
    `<rect width="${width}" height="${height}" fill="white"/>`,
    `<text x="12" y="22" font-size="15">${escaped(plot.title)}</text>`,
    legend(plot),
    ...panels,
    '</svg>',
    ''
  ].join('\n')
}

function legend(plot: Plot): string {
  const names = new Map(plot.rows.flat().flatMap(({ curves }) => curves.map(({ name, color }) => [name, color])))
  let x = 12
  const parts = [...names].map(([name, color]) => {
    const part = `<path d="M${x} 41h18" stroke="${color}" stroke-width="2"/><text x="${x + 23}" y="45">${escaped(name)}</text>`
    x += 40 + name.length * 6.5
    return part
  })
  const marks = plot.marks === '' ? '' : `<text x="${x}" y="45">× ${escaped(plot.marks)}</text>`
  return parts.join('') + marks
}

function panelSvg({ title, fromX, toX, events, curves }: Panel, { x: xName, y: yName }: Plot): string {
  const [wide, high] = [PANEL.width - MARGIN.left - MARGIN.right, PANEL.height - MARGIN.top - MARGIN.bottom]
  const inside = (x: number): boolean => x >= fromX && x <= toX
  const all = curves.flatMap(({ points, marks }) => [...points, ...marks]).filter(([x]) => inside(x))
  const topY = roundUp(Math.max(0, ...all.map(([, y]) => y)))
  const px = (x: number): number => tenth(MARGIN.left + ((x - fromX) / (toX - fromX)) * wide)
  const py = (y: number): number => tenth(MARGIN.top + high - (Math.max(0, y) / topY) * high)
  const bottom = MARGIN.top + high
  const ticksX = ticks(fromX, toX).map(
    x =>
      `<path d="M${px(x)} ${bottom}v4" stroke="black"/><text x="${px(x)}" y="${bottom + 15}" text-anchor="middle">${x}</text>`
  )
  const ticksY = [0, topY / 2, topY].map(
    y =>
      `<path d="M${MARGIN.left} ${py(y)}h${wide}" stroke="#ddd"/><text x="${MARGIN.left - 5}" y="${py(y) + 4}" text-anchor="end">${y}</text>`
  )
  const lines = events.map(
    ({ x, name }) =>
      `<path d="M${px(x)} ${MARGIN.top}V${bottom}" stroke="#888" stroke-dasharray="3 3"/><text x="${px(x) + 3}" y="${MARGIN.top + 10}" fill="#666" font-size="9">${escaped(name)}</text>`
  )
  const drawn = curves.map(({ color, points, marks }) => {
    const steps = thinned(
      points.filter(([x]) => inside(x)),
      px
    ).map(([x, y], i) => (i === 0 ? `M${px(x)} ${py(y)}` : `H${px(x)}V${py(y)}`))
    const last = steps.length === 0 ? '' : `H${px(toX)}`
    const crosses = marks.filter(([x]) => inside(x)).map(([x, y]) => `M${px(x) - 3} ${py(y) - 3}l6 6m0 -6l-6 6`)
    return `<path d="${steps.join('')}${last}" fill="none" stroke="${color}" stroke-width="1.5"/><path d="${crosses.join('')}" stroke="${color}"/>`
  })
  return [
    `<text x="${MARGIN.left}" y="${MARGIN.top - 8}" font-weight="bold">${escaped(title)}</text>`,
    `<text x="${MARGIN.left + wide}" y="${bottom + 28}" text-anchor="end">${escaped(xName)}</text>`,
    `<text x="${MARGIN.left}" y="${bottom + 28}">${escaped(yName)}</text>`,
    ...ticksY,
    `<path d="M${MARGIN.left} ${MARGIN.top}V${bottom}H${MARGIN.left + wide}" fill="none" stroke="black"/>`,
    ...ticksX,
    ...lines,
    ...drawn
  ].join('')
}

/** Of the points that fall on one pixel column only the last: thousands of steps look like it. */
function thinned(points: Curve['points'], px: (x: number) => number): Curve['points'] {
  return points.filter(([x], i) => {
    const next = points[i + 1]
    return i === 0 || next === undefined || Math.floor(px(next[0])) > Math.floor(px(x))
  })
}

/** Whole numbers, at most eight of them. */
function ticks(from: number, to: number): number[] {
  const step = Math.max(1, Math.ceil((to - from) / 8))
  const first = Math.ceil(from / step) * step
  return Array.from({ length: Math.floor((to - first) / step) + 1 }, (_, i) => first + i * step)
}

/** To 1, 2, 4 or 10 times a power of ten; 1 for 0. */
function roundUp(value: number): number {
  if (value <= 0) return 1
  const power = 10 ** Math.floor(Math.log10(value))
  return ([1, 2, 4, 10].find(times => times * power >= value) ?? 10) * power
}

const tenth = (value: number): number => Math.round(value * 10) / 10

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
