/** Names, times and lists as people read them in a timeline. Pure. */
import type { Story } from '../../protocols/decisions/merge.ts'
import { durationText } from './format.ts'

export class Words {
  readonly #story: Pick<Story, 'names'>
  readonly #time: Intl.DateTimeFormat
  readonly #day: Intl.DateTimeFormat

  /** `zone`: e.g. 'UTC'; without it this machine's. */
  constructor(story: Pick<Story, 'names'>, zone?: string) {
    this.#story = story
    const timeZone = zone === undefined ? {} : { timeZone: zone }
    const two = '2-digit' as const
    // Sweden writes dates and times as ISO 8601 does.
    const time = { hour: two, minute: two, second: two, fractionalSecondDigits: 3 as const, ...timeZone }
    this.#time = new Intl.DateTimeFormat('sv-SE', time)
    this.#day = new Intl.DateTimeFormat('sv-SE', { year: 'numeric', month: two, day: two, ...timeZone })
  }

  /** A member's name; of one that is a member no more the end of its id. */
  name(peer: string): string {
    return this.#story.names[peer] ?? (peer.length > 12 ? `…${peer.slice(-6)}` : peer)
  }

  names(peers: readonly string[]): string {
    return listed(peers.map(peer => this.name(peer)))
  }

  time(atMs: number): string {
    return this.#time.format(atMs).replace(',', '.')
  }

  /** '2026-03-01 02:14:03'. */
  moment(atMs: number): string {
    return `${this.#day.format(atMs)} ${this.time(atMs).slice(0, 8)}`
  }
}

/** 'a, b and c'. */
export function listed(words: readonly string[]): string {
  const [last = '', ...others] = words.toReversed()
  return others.length === 0 ? last : `${others.toReversed().join(', ')} and ${last}`
}

/** '412 ms', '4.2 s', '3 min 20 s'. */
export const span = (ms: number): string => (ms < 1_000 ? `${Math.round(ms)} ms` : durationText(ms))
