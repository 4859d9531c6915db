/** What happened in a run, in order, as one list: faults, what peers decided, epochs, checks. And as text. Pure. */

export type EntryKind = 'round' | 'fault' | 'heal' | 'peer' | 'decision' | 'epoch' | 'vm' | 'check' | 'broken'

export interface Entry {
  /** Since the run began, by the monotonic clock. */
  readonly atMs: number
  readonly kind: EntryKind
  /** Where it is about one host. */
  readonly host?: string | undefined
  readonly text: string
  /** Of a fault and its heal: number of the fault in the run. */
  readonly fault?: number
}

export class Timeline {
  readonly #now: () => number
  readonly #listener: (entry: Entry) => void
  readonly entries: Entry[] = []

  /** `now`: ms since the run began. */
  constructor(now: () => number, listener: (entry: Entry) => void = () => {}) {
    this.#now = now
    this.#listener = listener
  }

  add(kind: EntryKind, text: string, about: { readonly host?: string; readonly fault?: number } = {}): void {
    const entry = { atMs: this.#now(), kind, text, ...about }
    this.entries.push(entry)
    this.#listener(entry)
  }
}

/** "    12.345 s  fault     h2  its peer is killed (-9)" */
export function entryText({ atMs, kind, host = '', text }: Entry): string {
  const mark = kind === 'broken' ? 'BROKEN' : kind
  return `${(atMs / 1000).toFixed(3).padStart(10)} s  ${mark.padEnd(9)} ${host.padEnd(3)} ${text}`.trimEnd()
}

/** A file for people. `head`: lines above. */
export function timelineText(head: readonly string[], entries: readonly Entry[]): string {
  return [...head, '', ...entries.map(entryText), ''].join('\n')
}
