/** A failover over time: the one that the demo printed and README shows, so that picture and text have the same numbers. */
import { dot, line, type Picture, text } from './svg.ts'

interface Moment {
  readonly atMs: number
  readonly what: string
}

/** Lines of the demo's report below "The failure". Throws where there are none. */
export function momentsIn(readme: string): Moment[] {
  const [, report = ''] = /^ +The failure\n(.*?)\n\n/ms.exec(readme) ?? []
  const moments = report.split('\n').flatMap(each => {
    const [, at = '', what = ''] = /^ +([\d,.]+) ms {2}(.*)$/.exec(each) ?? []
    return at === '' ? [] : [{ atMs: Number(at.replaceAll(',', '')), what: what.replaceAll(/ \([^)]*\)/g, '') }]
  })
  if (moments.length < 3) throw new Error('README shows no failure of the demo')
  return moments
}

/** What goes on until then, and in which colour. */
const phases = [
  { until: /declares dead/, name: 'detection', kind: 'after' },
  { until: /gets it decided/, name: 'decision', kind: 'after' },
  { until: /runs on/, name: 'restore', kind: 'before' },
  { until: /has all its pages/, name: 'the rest of the pages', kind: 'before' }
] as const

const [LEFT, RIGHT, TOP, STEP] = [30, 330, 56, 26]

export function failoverPicture(readme: string): Picture {
  const moments = momentsIn(readme)
  const lastMs = moments.at(-1)?.atMs ?? 1
  const x = (atMs: number): number => Math.round(LEFT + (atMs / lastMs) * (RIGHT - LEFT))
  const bottom = TOP + moments.length * STEP
  const ends = phases.map(({ until }) => moments.findLast(({ what }) => until.test(what))?.atMs ?? 0)
  const bars = phases.flatMap(({ kind }, i) => {
    const [from, to] = [ends[i - 1] ?? 0, ends[i] ?? 0]
    const hold = i % 2 === 0 ? `line ${kind}` : `hold ${kind}`
    return [line(x(from), 24, x(to), 24, hold), line(x(to), 18, x(to), bottom, 'thin')]
  })
  const rows = moments.flatMap(({ atMs, what }, i) => {
    const y = TOP + i * STEP
    const at = ends.findIndex(endMs => atMs <= endMs)
    const phase = phases[at] ?? phases[0]
    const isFirst = moments.findIndex(moment => moment.atMs > (ends[at - 1] ?? -1)) === i
    return [
      line(x(atMs), y, RIGHT + 12, y, 'thin'),
      dot(x(atMs), y, 5, phase.kind),
      text(RIGHT + 86, y + 5, `${atMs.toLocaleString('en-US')} ms`, 'quiet end'),
      text(RIGHT + 98, y + 5, what),
      ...(isFirst ? [text(846, y + 5, phase.name, 'quiet end')] : [])
    ]
  })
  return {
    width: 860,
    height: bottom + 14,
    title: `A failover over ${(lastMs / 1000).toFixed(1)} seconds: ${moments.map(({ atMs, what }) => `after ${atMs} ms ${what}`).join('; ')}.`,
    parts: [...bars, ...rows]
  }
}
