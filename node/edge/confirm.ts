/** What cannot be undone is asked first: on a terminal; where nobody can be asked, `--yes` says it. */
import { UsageError } from '../errors.ts'
import type { Terminal } from './terminal.ts'

export interface Question {
  /** What is asked about, for who cannot be asked: "whether to remove x". */
  readonly whether: string
  /** The whole sentence, with what will be lost. */
  readonly ask: string
  /** What did not happen. */
  readonly otherwise: string
}

/** Asks only where it has to: `question` may need a look at the cluster. UsageError NOT_CONFIRMED. */
export async function confirm(
  { terminal }: { readonly terminal: Terminal },
  question: () => Question | Promise<Question>
): Promise<void> {
  const { whether, ask, otherwise } = await question()
  if (!terminal.asks) throw new UsageError('NOT_CONFIRMED', `nobody can be asked here ${whether}: --yes`)
  const answer = await terminal.ask(`${ask} [y/N] `)
  if (!/^y(es)?$/i.test(answer.trim())) throw new UsageError('NOT_CONFIRMED', otherwise)
}
