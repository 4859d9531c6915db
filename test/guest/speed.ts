/** What `speed.c` and `load.c` print, as numbers. Pure. */
import { fnv32 } from './console.ts'

/** One line: `id` of the command it answers (0: unasked), `kind`, and its numbers by name. */
export interface SpeedReport {
  readonly id: number
  readonly kind: string
  /** NaN where the line has none of this name. */
  value(name: string): number
}

const LINE = /((?:SPEED|LOAD) id=(\d+) kind=(\w+)(?: \w+=-?[\d.]+)*) sum=([0-9a-f]{8})/g

/** Every whole line in `text`, in order; torn ones are left out. */
export function parseSpeed(text: string): SpeedReport[] {
  return [...text.matchAll(LINE)].flatMap(([, body = '', id, kind = '', sum = '']) => {
    if (fnv32(body) !== Number.parseInt(sum, 16)) return []
    const fields = new Map(body.split(' ').map(word => [word.slice(0, word.indexOf('=')), Number(word.split('=')[1])]))
    return [{ id: Number(id), kind, value: name => fields.get(name) ?? Number.NaN }]
  })
}
