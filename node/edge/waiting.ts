/** What a command shows on a terminal while it waits for a peer, which has nothing to tell before it is done. */

export interface ProgressHost {
  /** On a terminal: how far it is, each in the place of the one before. Else nothing. */
  progress(text: string): void
}

/** Who waits for less does not need to be told. */
const TELL_AFTER_MS = 1_000

/** `what`: a whole sentence, such as "a snapshot of bank is taken". */
export async function whileWaiting<T>({ progress }: ProgressHost, what: string, call: Promise<T>): Promise<T> {
  let seconds = 0
  const telling = setInterval(() => progress(`${what}: ${++seconds} s`), TELL_AFTER_MS)
  try {
    return await call
  } finally {
    clearInterval(telling)
    if (seconds > 0) progress('')
  }
}
