/**
 * The diagonal code once more, slow and plain, to compare the real one with: symbols as lists of bytes, parity by the matrix of
 * the field as the library's source describes it, decoding by elimination over GF(2). It shares no code with `node/erasure`.
 *
 * A symbol is cut into blocks of w chunks; a chunk is one coordinate of many elements of GF(2^w) side by side. Multiplying by an
 * element is then a w × w matrix of bits on the w chunks, and adding is XOR. (J. Blömer et al., "An XOR-Based Erasure-Resilient
 * Coding Scheme", 1995.)
 */

/** Of shapes k+m: field exponent w, its polynomial, and column and row offset of the matrix (none for m <= 2). */
const FIELDS: Readonly<Record<string, readonly [w: number, polynomial: number, x: number, y: number]>> = {
  '2+1': [2, 7, 0, 0],
  '2+2': [2, 7, 0, 0],
  '3+2': [4, 19, 0, 0],
  '4+2': [4, 19, 0, 0],
  '5+1': [4, 19, 0, 0],
  '2+3': [4, 19, 0, 4],
  '3+3': [4, 19, 0, 9],
  '3+6': [4, 19, 0, 9],
  '8+4': [4, 19, 2, 12],
  '16+4': [8, 113, 22, 212]
}

export const PLAIN_SHAPES: readonly (readonly [k: number, m: number])[] = [
  [1, 1],
  [1, 3],
  ...Object.keys(FIELDS).map(name => name.split('+').map(Number) as unknown as readonly [number, number])
]

type Bits = number[]

/** Rows of bits: row (i, a) says which chunks of the data are summed for chunk a of symbol i of the codeword. */
function generator(k: number, m: number): { w: number; rows: Bits[] } {
  if (k === 1) return { w: 1, rows: new Array<Bits>(1 + m).fill([1]) }
  const field = FIELDS[`${k}+${m}`]
  if (field === undefined) throw new Error(`no field for ${k}+${m}`)
  const [w, polynomial, x, y] = field
  const size = 2 ** w
  const times = (a: number, b: number): number => {
    let product = 0
    for (let bit = 0, shifted = a; bit < w; bit++) {
      if (b & (1 << bit)) product ^= shifted
      shifted = (shifted & (size >> 1) ? (shifted << 1) ^ polynomial : shifted << 1) & (size - 1)
    }
    return product
  }
  const over = (a: number, b: number): number => {
    for (let c = 0; c < size; c++) if (times(c, b) === a) return c
    throw new Error('divided by zero')
  }
  /** Row `bit` of the matrix that multiplies by `a`. */
  const bitsOf = (a: number, bit: number): Bits => Array.from({ length: w }, (_, c) => (times(a, 2 ** c) >> bit) & 1)
  const ones = (a: number): number =>
    Array.from({ length: w }, (_, bit) => bitsOf(a, bit))
      .flat()
      .reduce((sum, each) => sum + each, 0)
  const matrix = parityMatrix(k, m, { size, x, y, over, ones })
  const rows: Bits[] = []
  for (let i = 0; i < k * w; i++) rows.push(Array.from({ length: k * w }, (_, at) => (at === i ? 1 : 0)))
  for (const row of matrix) for (let bit = 0; bit < w; bit++) rows.push(row.flatMap(element => bitsOf(element, bit)))
  return { w, rows }
}

interface Field {
  readonly size: number
  readonly x: number
  readonly y: number
  over(a: number, b: number): number
  ones(a: number): number
}

/** m rows of k elements: the first all ones, the others with as few one-bits as the library finds. */
function parityMatrix(k: number, m: number, { size, x, y, over, ones }: Field): number[][] {
  const first = new Array<number>(k).fill(1)
  if (m <= 2) {
    const elements = Array.from({ length: size - 1 }, (_, i) => i + 1).sort((a, b) => ones(a) - ones(b) || a - b)
    return [first, elements.slice(0, k)].slice(0, m)
  }
  const cauchy = Array.from({ length: m }, (_, r) => Array.from({ length: k }, (__, c) => over(1, (y + r) ^ (x + c))))
  const top = cauchy[0] ?? []
  return cauchy.map(row => {
    const scaled = row.map((element, c) => over(element, top[c] ?? 1))
    let best = scaled
    for (const divisor of scaled) {
      const divided = scaled.map(element => over(element, divisor))
      if (sum(divided, ones) < sum(best, ones)) best = divided
    }
    return best
  })
}

const sum = (elements: readonly number[], of: (element: number) => number): number =>
  elements.reduce((all, element) => all + of(element), 0)

/** A symbol as blocks of w chunks. The library halves chunks until all it works on at once fits a cache of 1 MiB. */
function chunksOf(symbol: Uint8Array, k: number, w: number): Uint8Array[][] {
  let chunkBytes = symbol.length / w
  while (chunkBytes > 64 && chunkBytes % 2 === 0 && (1 + k * w) * chunkBytes > 1 << 20) chunkBytes /= 2
  const blocks: Uint8Array[][] = []
  for (let at = 0; at < symbol.length; at += w * chunkBytes) {
    blocks.push(Array.from({ length: w }, (_, c) => symbol.subarray(at + c * chunkBytes, at + (c + 1) * chunkBytes)))
  }
  return blocks
}

const xorInto = (target: Uint8Array, source: Uint8Array): void => {
  for (let i = 0; i < target.length; i++) target[i] = (target[i] ?? 0) ^ (source[i] ?? 0)
}

/** All k + m symbols of a codeword. */
export function plainCodeword(data: readonly Uint8Array[], m: number): Uint8Array[] {
  const k = data.length
  const { w, rows } = generator(k, m)
  const blocks = data.map(symbol => chunksOf(symbol, k, w))
  return Array.from({ length: k + m }, (_, i) => {
    const symbol = Buffer.alloc(data[0]?.length ?? 0)
    for (const [block, chunks] of chunksOf(symbol, k, w).entries()) {
      for (const [a, chunk] of chunks.entries()) {
        for (const [at, bit] of (rows[i * w + a] ?? []).entries()) {
          if (bit) xorInto(chunk, blocks[Math.floor(at / w)]?.[block]?.[at % w] ?? chunk)
        }
      }
    }
    return symbol
  })
}

/** The k data symbols from any k of the n, by elimination. Undefined where that does not work out. */
export function plainDecode(symbols: readonly (Uint8Array | undefined)[], k: number): Uint8Array[] | undefined {
  const { w, rows } = generator(k, symbols.length - k)
  const equations: { bits: Bits; value: Uint8Array[] }[] = []
  for (const [i, symbol] of symbols.entries()) {
    if (symbol === undefined) continue
    const blocks = chunksOf(Buffer.from(symbol), k, w)
    for (let a = 0; a < w; a++) {
      equations.push({ bits: [...(rows[i * w + a] ?? [])], value: blocks.map(chunks => chunks[a] ?? symbol) })
    }
  }
  for (let at = 0; at < k * w; at++) {
    const pivot = equations.findIndex(({ bits }, index) => index >= at && bits[at] === 1)
    if (pivot === -1) return undefined
    const [found] = equations.splice(pivot, 1)
    if (found === undefined) return undefined
    equations.splice(at, 0, found)
    for (const other of equations) {
      if (other === found || other.bits[at] !== 1) continue
      other.bits = other.bits.map((bit, i) => bit ^ (found.bits[i] ?? 0))
      for (const [block, chunk] of other.value.entries()) xorInto(chunk, found.value[block] ?? chunk)
    }
  }
  const blockCount = equations[0]?.value.length ?? 0
  return Array.from({ length: k }, (_, i) => {
    const chunks = Array.from({ length: blockCount }, (__, block) =>
      Array.from({ length: w }, (___, a) => equations[i * w + a]?.value[block] ?? Buffer.alloc(0))
    )
    return Buffer.concat(chunks.flat())
  })
}

/** The columns of one grid: data symbol i is in row i mod k of diagonal ⌊i / k⌋, row r of diagonal d in column d + r mod C. */
export function plainColumns(
  { columns, k, m, symbolBytes }: { columns: number; k: number; m: number; symbolBytes: number },
  data: Uint8Array
): Buffer[] {
  const full = Buffer.concat([data, Buffer.alloc(columns * k * symbolBytes - data.length)])
  const symbols = Array.from({ length: columns }, () => new Array<Uint8Array>(k + m))
  for (let d = 0; d < columns; d++) {
    const own = Array.from({ length: k }, (_, r) =>
      full.subarray((d * k + r) * symbolBytes, (d * k + r + 1) * symbolBytes)
    )
    for (const [r, symbol] of plainCodeword(own, m).entries()) {
      const column = symbols[(d + r) % columns]
      if (column !== undefined) column[r] = symbol
    }
  }
  return symbols.map(column => Buffer.concat(column))
}
