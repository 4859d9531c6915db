/** What was found: its input as a file, how to have it again, and when there was enough of it. */
import { createHash } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { equal, type Check } from '../measure.ts'
import type { Failure } from './run-input.ts'

interface Known extends Failure {
  readonly target: string
  readonly seed: number
  /** The input's number. */
  readonly index: number
  /** It is known by its bytes: its number says no more than which choices were made beside it. */
  readonly byBytes: boolean
}

export interface Finding extends Known {
  /** The input. */
  readonly file: string
  /** The command that runs it again. */
  readonly again: string
}

/** Of one target: what comes behind them is most likely the same. */
export const MOST_FINDINGS = 5

/** Tells inputs apart that are known by their bytes. */
export const idOf = (input: Uint8Array): string => createHash('sha256').update(input).digest('hex').slice(0, 12)

/** Writes the input to the folder `out`. */
export function keep({ input, ...known }: Known & { readonly input: Uint8Array }, out: string): Finding {
  const { target, seed, index, byBytes } = known
  mkdirSync(out, { recursive: true })
  const file = join(out, `${target}-${seed}-${byBytes ? idOf(input) : index}.bin`)
  writeFileSync(file, input)
  const words = ['--target', target, '--seed', String(seed), '--number', String(index)]
  if (byBytes) words.push('--input', file)
  return { ...known, file, again: `npm run fuzz -- ${words.join(' ')}` }
}

export const findingText = ({ target, kind, what, file, again }: Finding): string =>
  `${target} ${kind}: ${what}\n    again: ${again}\n    input: ${file}`

/** One for each target: none. */
export const findingChecks = (targets: readonly { readonly name: string }[], findings: readonly Finding[]): Check[] =>
  targets.map(({ name }) => equal(name, findings.filter(({ target }) => target === name).length, 0, 'findings'))
