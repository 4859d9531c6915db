/** What `loss` measured, as curves. Pure. */
import type { DelayRow, ShareRow } from './loss.ts'
import { SCHEMES } from './loss-share.ts'
import { type Curve, type Panel, plotSvg } from './skew-plot.ts'

const SCHEME_COLORS = { none: '#888', replication: '#c60', plain: '#06c', diagonal: '#090' }
const DELAY_COLORS = { 'all well': '#888', without: '#c00', with: '#06c', hedged: '#090' }
/** What a page fault may take before people notice; a guess. Reads that take longer are beyond the right edge. */
const LONGEST_MS = 60

export function sharePlot(rows: readonly ShareRow[]): string {
  const nodes = [...new Set(rows.map(row => row.nodes))]
  const kinds = [
    { title: 'mean', of: (row: ShareRow) => row.mean },
    { title: '95th percentile', of: (row: ShareRow) => row.p95 },
    { title: 'placements with any loss', of: (row: ShareRow) => row.placementsWithLoss }
  ]
  const panel = (count: number, { title, of }: (typeof kinds)[number]): Panel => ({
    title: `${count} nodes: ${title}`,
    fromX: 0,
    toX: 5,
    events: [],
    curves: SCHEMES.map((scheme): Curve => {
      const own = rows.filter(row => row.nodes === count && row.scheme === scheme)
      const points = own.map(row => [row.gone, 100 * of(row)] as const)
      return { name: scheme, color: SCHEME_COLORS[scheme], points, marks: points }
    })
  })
  return plotSvg({
    title: 'What is lost of an image; each way stores 5/3 of its bytes, but "none"',
    marks: 'so many nodes gone',
    x: 'nodes gone',
    y: '%',
    rows: nodes.map(count => kinds.map(kind => panel(count, kind)))
  })
}

export function delayPlot(rows: readonly DelayRow[]): string {
  const curve = (name: keyof typeof DELAY_COLORS, row: DelayRow | undefined): Curve => {
    const ms = row?.delays.hitMs ?? []
    const points = ms.map((at, i) => [at, (100 * (i + 1)) / ms.length] as const)
    return { name, color: DELAY_COLORS[name], points, marks: [] }
  }
  const find = (name: string): DelayRow | undefined => rows.find(row => row.name === name)
  const panel = (fault: string): Panel => ({
    title: `it is ${fault}`,
    fromX: 0,
    toX: LONGEST_MS,
    events: [],
    curves: [
      curve('all well', find('none, with')),
      ...(['without', 'with', 'hedged'] as const).map(name => curve(name, find(`${fault}, ${name}`)))
    ]
  })
  return plotSvg({
    title: 'Reads of what one of five holders has: done in time, with and without the forced timeout',
    marks: '',
    x: 'ms',
    y: '% of reads',
    rows: [['slow', 'hung', 'gone'].map(panel)]
  })
}
