/** What targets begin with: their own seeds, and inputs that reached something new when `--grow` looked for such (`corpus/*.txt`). */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import type { Target } from './target.ts'

const FOLDER = join(import.meta.dirname, 'corpus')
const fileOf = (name: string): string => join(FOLDER, `${name}.txt`)

/** Stands before an input that was packed. */
const PACKED = '~'

/** As it is stored: packed, where that is shorter. A disk of a few clusters is mostly zeros. */
const stored = (input: Uint8Array): { readonly mark: string; readonly bytes: Uint8Array } => {
  const packed = deflateRawSync(input, { level: 9 })
  return packed.length < input.length ? { mark: PACKED, bytes: packed } : { mark: '', bytes: input }
}

export const storedBytes = (input: Uint8Array): number => stored(input).bytes.length

/** One input, in base64. */
function lineOf(input: Uint8Array): string {
  const { mark, bytes } = stored(input)
  return mark + Buffer.from(bytes).toString('base64')
}

const inputOf = (line: string): Uint8Array => {
  const bytes = Buffer.from(line.replace(PACKED, ''), 'base64')
  return new Uint8Array(line.startsWith(PACKED) ? inflateRawSync(bytes) : bytes)
}

export function grownOf(name: string): Uint8Array[] {
  const file = fileOf(name)
  if (!existsSync(file)) return []
  return readFileSync(file, 'latin1')
    .split('\n')
    .filter(line => line !== '')
    .map(inputOf)
}

export function writeGrown(name: string, inputs: readonly Uint8Array[]): void {
  const lines = inputs.map(input => `${lineOf(input)}\n`)
  if (lines.length > 0) writeFileSync(fileOf(name), lines.join(''))
  else rmSync(fileOf(name), { force: true })
}

/** Grown ones only with the seeds of the target: what is fuzzed elsewhere has none. */
export const seedsOf = (target: Target): readonly Uint8Array[] => [...target.seeds(), ...grownOf(target.name)]
