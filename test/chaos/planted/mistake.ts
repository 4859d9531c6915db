/**
 * A planted mistake: a few words of one module, replaced when a peer loads it. The product has no switch for bad behaviour, and
 * nothing of this is in it. What is replaced must be there exactly once: a change that moves it must move the mistake, too.
 */
import { join } from 'node:path'
import { DiapauseError } from '../../../node/errors.ts'
import type { Scenario } from '../scenario.ts'
import type { PromiseName } from './kinds.ts'

export const ROOT = join(import.meta.dirname, '../../..')

export interface Edit {
  /** Exactly once in the file. */
  readonly find: string
  readonly replace: string
}

export interface Mistake {
  readonly name: string
  /** From the root of the project. */
  readonly file: string
  readonly edits: readonly Edit[]
  /** Who would write that, and what it does. */
  readonly why: string
  /** In which it must be found. */
  readonly scenario: Scenario
  readonly seed: number
  /** What must be seen to break: one of these. Others may break besides. */
  readonly promises: readonly PromiseName[]
}

/** The module with the mistake in it. PLANTED_LOST where a text to be replaced is not there, or more than once. */
export function plant(source: string, { name, file, edits }: Pick<Mistake, 'name' | 'file' | 'edits'>): string {
  return edits.reduce((text, { find, replace }) => {
    const times = text.split(find).length - 1
    if (times === 1) return text.replace(find, () => replace)
    throw new DiapauseError(
      'PLANTED_LOST',
      `the mistake ${name} is to replace what is in ${file} ${times} times: ${find}\nmove it to where that is done now, once`
    )
  }, source)
}
