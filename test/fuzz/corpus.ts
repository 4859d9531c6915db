/** What targets begin with: their own seeds, and inputs that reached something new when `--grow` looked for such (`corpus/*.txt`). */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Target } from './target.ts'

const FOLDER = join(import.meta.dirname, 'corpus')
const fileOf = (name: string): string => join(FOLDER, `${name}.txt`)

/** One input a line, in base64. */
export function grownOf(name: string): Uint8Array[] {
  const file = fileOf(name)
  if (!existsSync(file)) return []
  const lines = readFileSync(file, 'latin1').split('\n')
  return lines.filter(line => line !== '').map(line => new Uint8Array(Buffer.from(line, 'base64')))
}

export function writeGrown(name: string, inputs: readonly Uint8Array[]): void {
  const lines = inputs.map(input => `${Buffer.from(input).toString('base64')}\n`)
  if (lines.length > 0) writeFileSync(fileOf(name), lines.join(''))
  else rmSync(fileOf(name), { force: true })
}

/** Grown ones only with the seeds of the target: what is fuzzed elsewhere has none. */
export const seedsOf = (target: Target): readonly Uint8Array[] => [...target.seeds(), ...grownOf(target.name)]
