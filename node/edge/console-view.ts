/** The serial console of a VM, wherever it runs: what is asked of a peer, and the lines that it answers with. */
import { UsageError } from '../errors.ts'

export interface ConsoleView {
  /**
   * What the VM says, from the last `history` bytes on, as long as `signal` lets it; it follows the VM to where it goes. Ends without
   * `follow` with what there is. GROUP_UNKNOWN, VM_UNKNOWN; CONSOLE_SILENT without `follow` where its host does not answer.
   */
  read(wish: ConsoleWish, signal: AbortSignal): AsyncIterable<ConsoleLine>
  /** Types on it. GROUP_UNKNOWN, VM_UNKNOWN, VM_ELSEWHERE, CONSOLE_SILENT; UsageError GROUP_RESTS. */
  type(group: string, vm: string, text: string): Promise<void>
}

export interface ConsoleWish {
  readonly group: string
  readonly vm: string
  readonly history: number
  readonly follow: boolean
}

/** `host`: whose console the following is from. `note`: for people, why nothing comes. `data`: base64 of what the VM said. */
export type ConsoleLine = { readonly host: string } | { readonly note: string } | { readonly data: string }

/** A screen of 80 by 25 and some. */
export const DEFAULT_HISTORY_BYTES = 4_096
export const MAX_HISTORY_BYTES = 32 << 10

/** Of characters that are typed at once: a command line, not a file. */
export const MAX_TYPED = 4_096

export function historyOf(text: string | null): number {
  const bytes = Number(text ?? DEFAULT_HISTORY_BYTES)
  if (Number.isInteger(bytes) && bytes >= 0 && bytes <= MAX_HISTORY_BYTES) return bytes
  throw new UsageError('API_BAD_REQUEST', `history is a number of bytes from 0 to ${MAX_HISTORY_BYTES}`)
}
