/**
 * With whom a VM speaks, and how soon it is answered: the rows of a communication graph. Pure. A few additions a frame, and the
 * clock only where a question is open: nothing is copied, and there is one row for each VM of the group and network.
 *
 * A question is the first frame sent since the other was heard last; its answer is the next frame heard. What the frames say is not
 * looked at: an acknowledgement is an answer, and a request that its server sends by itself begins a question of that one.
 */
import { MAX_TALKS, type Talk } from '../../protocols/talks.ts'

/** What comes back later was not waited for: a guess, five times the shortest timeout of TCP (200 ms, TCP_RTO_MIN in Linux). */
const ANSWER_WITHIN_MS = 1_000
/** What counts less than this is forgotten. */
const LEAST = 0.5

interface Row {
  sent: number
  sentBytes: number
  heard: number
  heardBytes: number
  answers: number
  answersMs: number
  /** Since when an answer is open. */
  askedMs: number | undefined
}

export class Talks {
  readonly #networkOf: (nic: number) => string
  /** By NIC and VM. */
  readonly #rows: Map<string, Row>[] = []

  constructor(networkOf: (nic: number) => string) {
    this.#networkOf = networkOf
  }

  /** A frame from this VM's NIC for that VM alone. */
  sent(vm: string, nic: number, bytes: number, nowMs: number): void {
    const row = this.#row(vm, nic)
    row.sent++
    row.sentBytes += bytes
    row.askedMs ??= nowMs
  }

  /** A frame from that VM for this one alone. */
  heard(vm: string, nic: number, bytes: number, now: () => number): void {
    const row = this.#row(vm, nic)
    row.heard++
    row.heardBytes += bytes
    if (row.askedMs === undefined) return
    const answerMs = now() - row.askedMs
    row.askedMs = undefined
    if (answerMs > ANSWER_WITHIN_MS) return
    row.answers++
    row.answersMs += answerMs
  }

  /** An epoch is over: what was before counts half from now on. */
  age(): void {
    for (const rows of this.#rows) {
      for (const [vm, row] of rows ?? []) {
        row.sent /= 2
        row.sentBytes /= 2
        row.heard /= 2
        row.heardBytes /= 2
        row.answers /= 2
        row.answersMs /= 2
        if (row.sent + row.heard < LEAST) rows.delete(vm)
      }
    }
  }

  /** At most MAX_TALKS, those of most frames; by VM and network. */
  list(): Talk[] {
    const talks = this.#rows.flatMap((rows, nic) => {
      const network = this.#networkOf(nic)
      return [...rows].map(([vm, row]) => talkOf(vm, network, row))
    })
    const most = talks.sort((a, b) => b.sent + b.heard - a.sent - a.heard || byName(a, b)).slice(0, MAX_TALKS)
    return most.sort(byName)
  }

  #row(vm: string, nic: number): Row {
    const rows = (this.#rows[nic] ??= new Map())
    let row = rows.get(vm)
    if (row === undefined) {
      row = { sent: 0, sentBytes: 0, heard: 0, heardBytes: 0, answers: 0, answersMs: 0, askedMs: undefined }
      rows.set(vm, row)
    }
    return row
  }
}

function talkOf(vm: string, network: string, { answers, answersMs, ...row }: Row): Talk {
  return {
    vm,
    network,
    sent: Math.round(row.sent),
    sentBytes: Math.round(row.sentBytes),
    heard: Math.round(row.heard),
    heardBytes: Math.round(row.heardBytes),
    answers: Math.round(answers),
    // A hundredth of a millisecond: more digits say nothing.
    answerMs: answers === 0 ? 0 : Math.round((100 * answersMs) / answers) / 100
  }
}

const byName = (a: Talk, b: Talk): number =>
  a.vm < b.vm ? -1 : a.vm > b.vm ? 1 : a.network < b.network ? -1 : a.network > b.network ? 1 : 0
