/** What `wire.c` tells, as connections and the new bytes that each carried when: what comes again is no new byte. Pure. */

export interface Sending {
  readonly atMs: number
  /** Of one segment, as far as they had not been sent before. */
  readonly bytes: number
}

export interface Connection {
  readonly from: string
  readonly to: string
  /** Of the one who dialled. */
  readonly port: number
  /** Of the SYN, CLOCK_MONOTONIC. */
  readonly openedMs: number
  readonly sent: readonly Sending[]
}

interface Seen extends Connection {
  readonly sent: Sending[]
  readonly first: number
  /** The sequence number after the last byte seen. */
  next: number
}

const LINE = /^(\d+)\.(\d{9}) (\S+) (\S+) (\d+) (\d+) (\d+) ([S-])$/

export class WireLog {
  /** From, to and port → the newest connection of that name. */
  readonly #seen = new Map<string, Seen>()

  /** A line of `wire.c`. Throws TypeError for what is none. */
  take(line: string): void {
    const parts = LINE.exec(line)
    if (parts === null) throw new TypeError(`not a line of wire.c: ${JSON.stringify(line)}`)
    const [, seconds, nanoseconds, from = '', to = '', port, sequence, bytes, syn] = parts
    const atMs = Number(seconds) * 1000 + Number(nanoseconds) / 1e6
    this.#segment({ atMs, from, to, port: Number(port), bytes: Number(bytes) }, Number(sequence), syn === 'S')
  }

  /** Connections that `from` dialled to `to`, in the order in which it did. */
  connections(from: string, to: string): Connection[] {
    return [...this.#seen.values()]
      .filter(each => each.from === from && each.to === to)
      .sort((a, b) => a.openedMs - b.openedMs)
  }

  /** Drops what was sent before. Connections stay. */
  forgetBefore(ms: number): void {
    for (const { sent } of this.#seen.values()) {
      const kept = sent.findIndex(each => each.atMs >= ms)
      sent.splice(0, kept < 0 ? sent.length : kept)
    }
  }

  #segment(about: Sending & Omit<Connection, 'openedMs' | 'sent'>, sequence: number, syn: boolean): void {
    const { atMs, from, to, port, bytes } = about
    const key = `${from} ${to} ${port}`
    let seen = this.#seen.get(key)
    if (syn) {
      if (seen?.first === sequence) return // again
      seen = { from, to, port, openedMs: atMs, sent: [], first: sequence, next: (sequence + 1) >>> 0 }
      this.#seen.set(key, seen)
      return
    }
    if (seen === undefined) return // opened before anybody looked: nothing is known of it
    const end = (sequence + bytes) >>> 0
    const fresh = (end - seen.next) | 0 // numbers go round at 2^32
    if (fresh <= 0) return
    seen.next = end
    seen.sent.push({ atMs, bytes: Math.min(fresh, bytes) })
  }
}
