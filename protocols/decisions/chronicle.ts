/**
 * The facts that one peer keeps, in bounds: pure, for the peer's log and for tests of it. Entries of a subject are in the
 * order in which they were noted. What repeats is one entry with a count, until something else happens to the subject.
 */
import { type Entry, type Fact, subjectOf } from './facts.ts'
import { joinRepeat, repeatKey } from './repeats.ts'

/** Of one subject. A takeover leaves about 15 entries at each peer: room for the last dozen and more. A guess. */
export const MAX_SUBJECT_ENTRIES = 250
export const MAX_SUBJECT_BYTES = 64 * 1024
/** Of all subjects: as much as some hundred groups have to tell of a bad night, and little for a Raspberry Pi. A guess. */
export const MAX_BYTES = 4 * 1024 * 1024
/** The same, but this long after the last time, is told anew. A guess. */
export const REPEAT_GAP_MS = 60_000

/**
 * Entries that one write takes. Measured: 11 µs of processor time each, so that after a night with a full disk nobody waits more
 * than some milliseconds for a part of what has piled up.
 */
export const MAX_WRITE_ENTRIES = 500

/** Under what name an entry is stored; sorted by name is sorted by subject, then by order. */
export const entryName = (subject: string, seq: number): string => `${subject}/${String(seq).padStart(16, '0')}`

export interface Changes {
  readonly put: readonly (readonly [string, Entry])[]
  readonly drop: readonly string[]
}

interface Kept {
  readonly subject: string
  readonly bytes: number
  entry: Entry
}

export interface ChronicleLimits {
  readonly subjectEntries: number
  readonly subjectBytes: number
  readonly bytes: number
}

const LIMITS: ChronicleLimits = {
  subjectEntries: MAX_SUBJECT_ENTRIES,
  subjectBytes: MAX_SUBJECT_BYTES,
  bytes: MAX_BYTES
}

export class Chronicle {
  readonly #limits: ChronicleLimits
  /** In order, all subjects together: the first is the oldest. */
  readonly #bySeq = new Map<number, Kept>()
  readonly #subjects = new Map<string, { readonly seqs: Set<number>; bytes: number }>()
  /** Subject → key of a repeat → where it is counted. */
  readonly #repeats = new Map<string, Map<string, number>>()
  readonly #changed = new Set<number>()
  readonly #stored = new Set<number>()
  readonly #dropped = new Set<string>()
  #bytes = 0
  #nextSeq = 1

  constructor(limits: ChronicleLimits = LIMITS) {
    this.#limits = limits
  }

  /** Before anything is noted: what was stored in an earlier life of this peer. */
  load(entries: readonly Entry[]): void {
    for (const entry of entries.toSorted((a, b) => a.seq - b.seq)) {
      this.#stored.add(entry.seq)
      this.#keep(subjectOf(entry.fact), entry)
      this.#nextSeq = entry.seq + 1
    }
  }

  /** 'repeated' where it only counts up what was noted before. */
  note(fact: Fact, atMs: number): 'new' | 'repeated' {
    const subject = subjectOf(fact)
    const key = repeatKey(fact)
    if (key === undefined) this.#repeats.delete(subject)
    else if (this.#count(subject, key, fact, atMs)) return 'repeated'
    const seq = this.#nextSeq++
    this.#keep(subject, { seq, atMs, lastAtMs: atMs, times: 1, fact })
    this.#changed.add(seq)
    if (key !== undefined) {
      const repeats = this.#repeats.get(subject) ?? new Map<string, number>()
      this.#repeats.set(subject, repeats.set(key, seq))
    }
    return 'new'
  }

  /** Of these subjects, in order, without what ended before `sinceMs`. */
  entries(subjects: Iterable<string>, sinceMs = 0): Entry[] {
    const seqs = [...new Set(subjects)].flatMap(subject => [...(this.#subjects.get(subject)?.seqs ?? [])])
    return seqs
      .sort((a, b) => a - b)
      .flatMap(seq => this.#bySeq.get(seq)?.entry ?? [])
      .filter(entry => entry.lastAtMs >= sinceMs)
  }

  /** The last `limit` of all subjects, in order, without what ended before `sinceMs`. */
  newest(limit: number, sinceMs = 0): Entry[] {
    const entries = [...this.#bySeq.values()].map(({ entry }) => entry)
    return entries.filter(({ lastAtMs }) => lastAtMs >= sinceMs).slice(-limit)
  }

  get size(): { readonly entries: number; readonly bytes: number } {
    return { entries: this.#bySeq.size, bytes: this.#bytes }
  }

  /** Something is not on disk as it is here. */
  get changed(): boolean {
    return this.#changed.size + this.#dropped.size > 0
  }

  /** What is not on disk as it is here, as much as one write takes; say `written` or `failed` of it before the next call. */
  takeChanges(): Changes {
    const drop = [...this.#dropped].slice(0, MAX_WRITE_ENTRIES)
    const seqs = [...this.#changed].slice(0, MAX_WRITE_ENTRIES)
    for (const name of drop) this.#dropped.delete(name)
    for (const seq of seqs) this.#changed.delete(seq)
    const put = seqs.flatMap(seq => {
      const kept = this.#bySeq.get(seq)
      return kept === undefined ? [] : [[entryName(kept.subject, seq), kept.entry] as const]
    })
    return { put, drop }
  }

  /** They are on disk; what was dropped meanwhile must go from there, too. */
  written({ put }: Changes): void {
    for (const [name, { seq }] of put) {
      if (this.#bySeq.has(seq)) this.#stored.add(seq)
      else this.#dropped.add(name)
    }
  }

  /** They did not get to disk: they are changes still. */
  failed({ put, drop }: Changes): void {
    for (const [, { seq }] of put) if (this.#bySeq.has(seq)) this.#changed.add(seq)
    for (const name of drop) this.#dropped.add(name)
  }

  #count(subject: string, key: string, fact: Fact, atMs: number): boolean {
    const seq = this.#repeats.get(subject)?.get(key)
    const kept = seq === undefined ? undefined : this.#bySeq.get(seq)
    if (seq === undefined || kept === undefined || atMs - kept.entry.lastAtMs > REPEAT_GAP_MS) return false
    const { entry } = kept
    const lastAtMs = Math.max(entry.lastAtMs, atMs)
    kept.entry = { ...entry, lastAtMs, times: entry.times + 1, fact: joinRepeat(entry.fact, fact) }
    this.#changed.add(seq)
    return true
  }

  #keep(subject: string, entry: Entry): void {
    const bytes = JSON.stringify(entry).length
    let ring = this.#subjects.get(subject)
    if (ring === undefined) {
      ring = { seqs: new Set(), bytes: 0 }
      this.#subjects.set(subject, ring)
    }
    this.#bySeq.set(entry.seq, { subject, bytes, entry })
    ring.seqs.add(entry.seq)
    ring.bytes += bytes
    this.#bytes += bytes
    const { subjectEntries, subjectBytes } = this.#limits
    while (ring.seqs.size > 1 && (ring.seqs.size > subjectEntries || ring.bytes > subjectBytes)) this.#drop(ring.seqs)
    while (this.#bySeq.size > 1 && this.#bytes > this.#limits.bytes) this.#drop(this.#bySeq.keys())
  }

  /** The first of them. */
  #drop(seqs: Iterable<number>): void {
    for (const seq of seqs) {
      const kept = this.#bySeq.get(seq)
      const ring = this.#subjects.get(kept?.subject ?? '')
      if (kept === undefined || ring === undefined) return
      this.#bySeq.delete(seq)
      ring.seqs.delete(seq)
      ring.bytes -= kept.bytes
      this.#bytes -= kept.bytes
      if (ring.seqs.size === 0) {
        this.#subjects.delete(kept.subject)
        this.#repeats.delete(kept.subject)
      }
      // What never got to disk need not be taken off it: a full disk does not make this list grow.
      if (this.#stored.delete(seq)) this.#dropped.add(entryName(kept.subject, seq))
      this.#changed.delete(seq)
      return
    }
  }
}

/** Where a chronicle outlives its process. The last second before a crash may be missing. */
export interface DecisionStore {
  /** What is there and can be read. */
  load(): Promise<Entry[]>
  write(changes: Changes): Promise<void>
  close(): Promise<void>
}
