/** What commands may know of the terminal that they print on, and what is bright there. */

export interface Terminal {
  /** What is printed goes to a terminal, and not to a file or another program. */
  readonly shows: boolean
  /** Somebody sits there who can be asked. */
  readonly asks: boolean
  readonly color: boolean
  /** As it is, without an end of line. */
  write(bytes: string | Uint8Array): void
  /** A line of an answer. INTERRUPTED. */
  ask(question: string): Promise<string>
  /** Each key as it is pressed, until `signal`; nothing of it is shown. Only where `asks`. */
  keys(signal: AbortSignal): AsyncIterable<Uint8Array>
}

/** From the top left on: what stood there is gone. */
export const CLEAR = '\x1b[H\x1b[2J\x1b[3J'

const RED = 31
const GREEN = 32
const YELLOW = 33

/** Words of state in what commands print. Whole words, so that a VM called "lost-and-found" stays as it is. */
const bright: readonly (readonly [RegExp, number])[] = [
  [/(?<![\w-])(?:dead|lost|broken|FAILED|NOT BACK|NO MAJORITY|DOWN|EXPOSED|OVER ITS OBJECTIVE)(?![\w-])/g, RED],
  [/(?<![\w-])(?:suspect|worse|starting|unknown|waiting)(?![\w-])/g, YELLOW],
  [/(?<![\w-])(?:alive|good|running|ready)(?![\w-])/g, GREEN]
]

/** What people look for in a colour, where the terminal has some: after columns were aligned, which count characters. */
export function painted(text: string, { color }: Pick<Terminal, 'color'>): string {
  if (!color) return text
  return bright.reduce((all, [words, code]) => all.replace(words, word => `\x1b[${code}m${word}\x1b[0m`), text)
}
