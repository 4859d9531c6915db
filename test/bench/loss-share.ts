/**
 * How much of an image is lost when nodes are gone, for four ways to store it in (k + m) / k times its bytes. Pure.
 *
 *   none         each symbol once. More bytes would not help it, so it takes k / (k + m) of the others'.
 *   replication  each symbol at distinct random nodes; where (k + m) / k is no whole number, as many symbols have a copy more
 *                than the others as makes the same bytes: at 5/3 two thirds have two copies and one third has one.
 *   plain        Reed-Solomon as it is mostly drawn: k nodes hold data, m others parity, the same ones for the whole image.
 *   diagonal     the real grid (`node/erasure/grid.ts`) on the real placement (`node/planning/holders.ts`).
 *
 * Of a coded image a symbol can be read as the reader does it: from its own node, or from any k of its codeword. Names of
 * nodes and the turn are drawn for each placement; that makes the placement a random one, since it goes by them.
 */
import { dataSymbolAt, dataSymbols, diagonalMembers, gridShape } from '../../node/erasure/grid.ts'
import { planHolders } from '../../node/planning/holders.ts'
import type { Random } from '../../protocols/core.ts'

export const SCHEMES = ['none', 'replication', 'plain', 'diagonal'] as const
export type Scheme = (typeof SCHEMES)[number]

export interface Shape {
  readonly nodes: number
  readonly k: number
  readonly m: number
}

/** Symbols of an image that is not coded: 600 are as many thirds as fifths. */
const SYMBOLS = 600

/** Names in random order and `gone` of them. */
export function randomNodes(random: Random, nodes: number, gone: number): { names: string[]; gone: Set<string> } {
  const names = Array.from({ length: nodes }, () => `n${random()}`)
  return { names, gone: new Set(drawn(random, names, gone)) }
}

/** Share of the image's bytes that cannot be read, at one random placement. */
export function lostShare(scheme: Scheme, shape: Shape, goneNodes: number, random: Random): number {
  const { names, gone } = randomNodes(random, shape.nodes, goneNodes)
  switch (scheme) {
    case 'none':
      return uncoded(names, gone, random, () => 1)
    case 'replication':
      return uncoded(names, gone, random, copiesOf(shape))
    case 'plain': {
      const holders = planHolders(names, shape.k, shape.m, turnOf(random)).slice(0, shape.k + shape.m)
      const rows = Array.from({ length: shape.k }, (_, row) => isLost(shape.k, row, holders, gone))
      return rows.filter(Boolean).length / shape.k
    }
    case 'diagonal': {
      const lost = lostSymbols(shape, planHolders(names, shape.k, shape.m, turnOf(random)), gone)
      return lost.filter(Boolean).length / lost.length
    }
  }
}

/** Of each data symbol of a grid whether it cannot be read. */
export function lostSymbols({ k, m }: Shape, holders: readonly string[], gone: ReadonlySet<string>): boolean[] {
  const grid = gridShape({ columns: holders.length, k, m, symbolBytes: 64 })
  return Array.from({ length: dataSymbols(grid) }, (_, i) => {
    const { row, diagonal } = dataSymbolAt(grid, i)
    const codeword = diagonalMembers(grid, diagonal).map(({ column }) => holders[column] ?? '')
    return isLost(k, row, codeword, gone)
  })
}

/**
 * The share that a code of any layout loses on average: a symbol is lost with its own node when more than m of its codeword's
 * n nodes are gone, and those are a random choice of all.
 */
export function expectedLoss({ nodes, k, m }: Shape, gone: number): number {
  let lost = 0
  for (let others = m; others <= Math.min(gone - 1, k + m - 1); others++) {
    // Its own node is gone, `others` of the codeword's other nodes, and the rest of those gone outside of it.
    lost += choose(k + m - 1, others) * choose(nodes - k - m, gone - 1 - others)
  }
  return lost / choose(nodes, gone)
}

function isLost(k: number, row: number, codeword: readonly string[], gone: ReadonlySet<string>): boolean {
  return gone.has(codeword[row] ?? '') && codeword.filter(node => !gone.has(node)).length < k
}

function uncoded(
  names: readonly string[],
  gone: ReadonlySet<string>,
  random: Random,
  copies: (symbol: number) => number
): number {
  let lost = 0
  for (let symbol = 0; symbol < SYMBOLS; symbol++) {
    if (drawn(random, names, copies(symbol)).every(node => gone.has(node))) lost++
  }
  return lost / SYMBOLS
}

/** How often each symbol is stored, so that all take (k + m) / k times their bytes. */
export function copiesOf({ k, m }: Shape): (symbol: number) => number {
  const fewest = Math.floor((k + m) / k)
  const more = Math.round(SYMBOLS * ((k + m) / k - fewest))
  return symbol => (symbol < more ? fewest + 1 : fewest)
}

const turnOf = (random: Random): number => Math.floor(random() * 1_000)

/** `count` of them, no one twice. */
function drawn<T>(random: Random, from: readonly T[], count: number): T[] {
  const left = [...from]
  return Array.from({ length: Math.min(count, left.length) }, () => {
    const [one] = left.splice(Math.floor(random() * left.length), 1)
    return one as T
  })
}

function choose(n: number, r: number): number {
  if (r < 0 || r > n) return 0
  let ways = 1
  for (let i = 0; i < r; i++) ways = (ways * (n - i)) / (i + 1)
  return ways
}
