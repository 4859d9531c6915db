/** The diagonal grid, from the production layout: which symbol is on which peer, and what two lost peers take. */
import { diagonalAt } from '../../node/erasure/grid.ts'
import { box, type Picture, text } from './svg.ts'

const [K, M, COLUMNS] = [3, 2, 5]
const LOST = [1, 3]
const [LEFT, TOP, WIDTH, HEIGHT] = [110, 62, 76, 44]

export function gridPicture(): Picture {
  const rows = Array.from({ length: K + M }, (_, row) => row)
  const columns = Array.from({ length: COLUMNS }, (_, column) => column)
  const cells = rows.flatMap(row =>
    columns.flatMap(column => {
      const diagonal = diagonalAt({ columns: COLUMNS }, { column, row })
      const kind = diagonal === 0 ? 'cell chosen' : row < K ? 'cell' : 'cell parity'
      const [x, y] = [LEFT + column * WIDTH, TOP + row * HEIGHT]
      const name = `${String.fromCharCode(97 + diagonal)}${row}`
      const faint = LOST.includes(column) ? ' faint' : ''
      return [
        box(x + 2, y + 2, WIDTH - 4, HEIGHT - 4, `${kind}${faint}`),
        text(x + WIDTH / 2, y + 27, name, `${diagonal === 0 ? 'strong ' : ''}middle${faint}`)
      ]
    })
  )
  const bottom = TOP + rows.length * HEIGHT
  const lost = LOST.map(column => text(LEFT + (column + 0.5) * WIDTH, bottom + 20, 'lost', 'strong middle gone'))
  const there = rows.filter(row => !LOST.includes(row % COLUMNS)).map(row => `a${row}`)
  const gone = rows.filter(row => LOST.includes(row % COLUMNS)).map(row => `a${row}`)
  const words = [
    ['A letter is a codeword, on a diagonal:', 'strong'],
    ['its symbols are on five peers.', ''],
    [`${LOST.map(column => `p${column + 1}`).join(' and ')} are lost, with ${gone.join(' and ')}.`, ''],
    [`${there.join(', ')} are there: any ${K} are enough.`, ''],
    ['Each peer has as much data and parity', 'quiet'],
    ['as any other, so reads fall on all alike.', 'quiet']
  ] as const
  return {
    width: 860,
    height: 320,
    title: `A grid of ${COLUMNS} columns, one a peer, with ${K} rows of data and ${M} of parity. Codewords lie on diagonals, so that each loses one symbol with each lost peer; two peers are lost, and three symbols of every codeword are left.`,
    parts: [
      ...columns.map(column => text(LEFT + (column + 0.5) * WIDTH, 44, `p${column + 1}`, 'strong middle')),
      ...rows.map(row => text(LEFT - 14, TOP + row * HEIGHT + 27, row < K ? 'data' : 'parity', 'quiet end')),
      ...cells,
      ...lost,
      ...words.map(([sentence, kind], i) => text(LEFT + COLUMNS * WIDTH + 34, TOP + 28 + i * 32, sentence, kind))
    ]
  }
}
