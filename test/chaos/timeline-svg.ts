/**
 * The timeline as a picture: a lane for each host, with a bar for each fault that hit it; a lane for each VM, in the colour of the host
 * that it was heard from (by the observer outside, not by anybody's word); epochs and checks as marks below. Pure.
 */
import type { Stint } from './beat-log.ts'
import type { Entry } from './timeline.ts'

export interface Drawing {
  readonly title: string
  readonly hosts: readonly string[]
  readonly entries: readonly Entry[]
  /** Times as those of `entries`. */
  readonly stints: readonly Stint[]
}

const LEFT = 64
const WIDTH = 1_200
const LANE = 26
const BAR = 16
const HEAD = 64
const COLOURS = ['#0a6cc2', '#c2500a', '#1d8a3a', '#8a2fb0', '#b08a00', '#00838a', '#b0305f'] as const
const FONT = 'font-family="sans-serif" font-size="11"'

export function timelineSvg({ title, hosts, entries, stints }: Drawing): string {
  const endMs = Math.max(1, ...entries.map(({ atMs }) => atMs), ...stints.map(({ untilMs }) => untilMs))
  const x = (ms: number): number => Math.round((LEFT + (Math.max(0, ms) / endMs) * (WIDTH - LEFT - 12)) * 10) / 10
  const vms = [...new Set(stints.map(({ vm }) => vm))].sort()
  const lanes = [...hosts, ...vms, 'epochs', 'checks']
  const y = (lane: string): number => HEAD + lanes.indexOf(lane) * LANE
  const height = HEAD + lanes.length * LANE + 40
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" ${FONT} role="img">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${WIDTH}" height="${height}" fill="white"/>`,
    `<text x="12" y="20" font-size="15">${escaped(title)}</text>`,
    legend(hosts),
    ...lanes.map(lane => `<text x="8" y="${y(lane) + 12}">${escaped(lane)}</text>`),
    ...lanes.map(lane => `<path d="M${LEFT} ${y(lane) + LANE - 6}H${WIDTH - 12}" stroke="#eee"/>`),
    ...rounds(entries, x, height),
    ...faults(entries, endMs, x, y),
    ...stints.map(stint => copy(stint, hosts, x, y)),
    ...entries.flatMap(entry => mark(entry, x, y)),
    axis(endMs, x, height),
    '</svg>',
    ''
  ].join('\n')
}

type Scale = (of: number) => number
type LaneScale = (lane: string) => number

const colourOf = (host: string, hosts: readonly string[]): string =>
  COLOURS[Math.max(0, hosts.indexOf(host)) % COLOURS.length] ?? COLOURS[0]

function legend(hosts: readonly string[]): string {
  const parts = hosts.map(
    (host, i) =>
      `<rect x="${LEFT + i * 70}" y="32" width="14" height="10" fill="${colourOf(host, hosts)}"/><text x="${LEFT + 18 + i * 70}" y="41">on ${escaped(host)}</text>`
  )
  const after = LEFT + hosts.length * 70
  return `${parts.join('')}<rect x="${after}" y="32" width="14" height="10" fill="#444"/><text x="${after + 18}" y="41">fault</text><circle cx="${after + 67}" cy="37" r="4" fill="#1d8a3a"/><text x="${after + 76}" y="41">holds</text><circle cx="${after + 127}" cy="37" r="4" fill="#d00000"/><text x="${after + 136}" y="41">broken</text>`
}

function rounds(entries: readonly Entry[], x: Scale, height: number): string[] {
  return entries
    .filter(({ kind }) => kind === 'round')
    .map(({ atMs, text }) => {
      const at = x(atMs)
      return `<path d="M${at} ${HEAD - 8}V${height - 30}" stroke="#bbb" stroke-dasharray="3 3"/><text x="${at + 3}" y="${HEAD - 4}" fill="#777">${escaped(text)}</text>`
    })
}

/** From its begin to its heal, or to the end. Those of one host that overlap are drawn one over the other. */
function faults(entries: readonly Entry[], endMs: number, x: Scale, y: LaneScale): string[] {
  return entries
    .filter(({ kind }) => kind === 'fault')
    .map(({ atMs, host = '', text, fault }) => {
      const until = entries.find(entry => entry.kind === 'heal' && entry.fault === fault)?.atMs ?? endMs
      const width = Math.max(3, x(until) - x(atMs))
      return `<rect x="${x(atMs)}" y="${y(host)}" width="${width}" height="${BAR}" fill="#444" opacity="0.75"><title>${escaped(text)}</title></rect>`
    })
}

function copy({ vm, host, fromMs, untilMs, beats }: Stint, hosts: readonly string[], x: Scale, y: LaneScale): string {
  const width = Math.max(1, x(untilMs) - x(fromMs))
  const title = `${vm} heard from ${host}: ${beats} beats`
  return `<rect x="${x(fromMs)}" y="${y(vm)}" width="${width}" height="${BAR}" fill="${colourOf(host, hosts)}"><title>${escaped(title)}</title></rect>`
}

function mark({ kind, atMs, text }: Entry, x: Scale, y: LaneScale): string[] {
  const title = `<title>${escaped(text)}</title>`
  if (kind === 'epoch') {
    const colour = text.includes('aborted') ? '#c2500a' : '#0a6cc2'
    return [`<path d="M${x(atMs)} ${y('epochs')}v${BAR}" stroke="${colour}" stroke-width="2">${title}</path>`]
  }
  if (kind !== 'check' && kind !== 'broken') return []
  const colour = kind === 'check' ? '#1d8a3a' : '#d00000'
  return [`<circle cx="${x(atMs)}" cy="${y('checks') + 8}" r="4" fill="${colour}">${title}</circle>`]
}

function axis(endMs: number, x: Scale, height: number): string {
  const stepS = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600].find(step => endMs / 1000 / step <= 20) ?? 1_200
  const ticks = Array.from({ length: Math.floor(endMs / 1000 / stepS) + 1 }, (_, i) => i * stepS)
  return ticks
    .map(s => `<text x="${x(s * 1000)}" y="${height - 12}" text-anchor="middle" fill="#777">${s} s</text>`)
    .join('')
}

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
