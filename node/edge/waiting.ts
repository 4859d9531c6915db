/** What a command shows on a terminal while it waits for a peer, which has nothing to tell before it is done. */
import type { Terminal } from './terminal.ts'

export interface ProgressHost {
  /** On a terminal: how far it is, each in the place of the one before. Else nothing. */
  progress(text: string): void
}

/** Who waits for less does not need to be told. */
const TELL_AFTER_MS = 1_000

/**
 * `what`: a whole sentence, such as "a snapshot of bank is taken". Who does `work` may say what is waited for `now` instead; that is
 * shown at once.
 */
export async function whileWaiting<T>(
  { progress }: ProgressHost,
  what: string,
  work: Promise<T> | ((now: (what: string) => void) => Promise<T>)
): Promise<T> {
  let [doing, seconds, shown] = [what, 0, false]
  const show = (): void => {
    shown = true
    progress(seconds === 0 ? doing : `${doing}: ${seconds} s`)
  }
  const telling = setInterval(() => {
    seconds++
    show()
  }, TELL_AFTER_MS)
  const now = (next: string): void => {
    doing = next
    show()
  }
  try {
    return await (typeof work === 'function' ? work(now) : work)
  } finally {
    clearInterval(telling)
    if (shown) progress('')
  }
}

export interface TalkingHost extends ProgressHost {
  readonly terminal: Terminal
  print(text: string): void
  printError(text: string): void
}

/**
 * `host`, whose commands are seen to wait although they say nothing of it: from `begin` on, until they print, ask or show something
 * else, or `end`.
 */
export function seenToWait<H extends TalkingHost>(
  host: H
): { readonly host: H; begin(what: string): void; end(): void } {
  let telling: NodeJS.Timeout | undefined
  let seconds = 0
  let shown = false
  const show = (text: string): void => {
    shown = text !== ''
    host.progress(text)
  }
  const silent = (): void => {
    clearInterval(telling)
    seconds = 0
  }
  const end = (): void => {
    silent()
    if (shown) show('')
  }
  const { terminal } = host
  const listening: Pick<Terminal, 'write' | 'ask' | 'keys'> = {
    write: bytes => (end(), terminal.write(bytes)),
    ask: question => (end(), terminal.ask(question)),
    keys: signal => (end(), terminal.keys(signal))
  }
  return {
    host: {
      ...host,
      terminal: { ...terminal, ...listening },
      print: text => (end(), host.print(text)),
      printError: text => (end(), host.printError(text)),
      progress: text => (silent(), show(text))
    },
    begin(what) {
      end()
      telling = setInterval(() => show(`${what}: ${++seconds} s`), TELL_AFTER_MS)
    },
    end
  }
}
