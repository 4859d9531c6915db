/** A little of SVG, as text: what the pictures of the documentation are made of. Colours have meanings, for light and dark pages. */

const STYLE = `
    text { font: 14px system-ui, sans-serif; fill: #1c2430 }
    .quiet { fill: #5b6675 } .strong { font-weight: 600 } .middle { text-anchor: middle } .end { text-anchor: end }
    .page { fill: #ffffff } .thin { stroke: #a9b3c0; stroke-width: 1; fill: none } .cut { stroke: #1c2430; stroke-width: 2; stroke-dasharray: 5 4 }
    .before { stroke: #2f6fbf; fill: #2f6fbf } .after { stroke: #b85c00; fill: #b85c00 } .gone { fill: #b3261e } .faint { opacity: 0.35 }
    .cell { stroke: #a9b3c0; fill: #f2f5f9 } .parity { fill: #e3e9f1 } .chosen { fill: #cfe3ff; stroke: #2f6fbf; stroke-width: 2 }
    .line { fill: none; stroke-width: 2.5 } .hold { fill: none; stroke-width: 7; stroke-opacity: 0.45 } .dot { stroke: none }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6ebf2 } .quiet { fill: #9aa7b8 } .page { fill: #12161c } .thin { stroke: #4c5767 } .cut { stroke: #e6ebf2 }
      .before { stroke: #6ea8fe; fill: #6ea8fe } .after { stroke: #ffab5e; fill: #ffab5e } .gone { fill: #ff8a80 }
      .cell { stroke: #4c5767; fill: #1a212b } .parity { fill: #232c39 } .chosen { fill: #1f3a5f; stroke: #6ea8fe }
      .line { fill: none } .hold { fill: none }
    }`

export interface Picture {
  readonly width: number
  readonly height: number
  /** For who does not see it. */
  readonly title: string
  readonly parts: readonly string[]
}

export function svg({ width, height, title, parts }: Picture): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`,
    `  <title>${escaped(title)}</title>`,
    `  <style>${STYLE}\n  </style>`,
    `  <rect class="page" width="${width}" height="${height}"/>`,
    ...parts.map(part => `  ${part}`),
    '</svg>',
    ''
  ].join('\n')
}

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')

export const text = (x: number, y: number, words: string, kind = ''): string =>
  `<text x="${x}" y="${y}"${kind === '' ? '' : ` class="${kind}"`}>${escaped(words)}</text>`

export const line = (x1: number, y1: number, x2: number, y2: number, kind: string): string =>
  `<path d="M${x1} ${y1} L${x2} ${y2}" class="${kind}"/>`

export const box = (x: number, y: number, width: number, height: number, kind: string): string =>
  `<rect x="${x}" y="${y}" width="${width}" height="${height}" rx="3" class="${kind}"/>`

export const dot = (x: number, y: number, radius: number, kind: string): string =>
  `<circle cx="${x}" cy="${y}" r="${radius}" class="dot ${kind}"/>`

/** A line with a head at its end. */
export function arrow(x1: number, y1: number, x2: number, y2: number, kind: string): string {
  const turn = Math.atan2(y2 - y1, x2 - x1)
  const at = (by: number): string =>
    `${Math.round(x2 - 11 * Math.cos(turn + by))} ${Math.round(y2 - 11 * Math.sin(turn + by))}`
  return `<g class="${kind}"><path d="M${x1} ${y1} L${x2} ${y2}" class="line"/><path d="M${x2} ${y2} L${at(0.4)} L${at(-0.4)} Z"/></g>`
}
