/**
 * What `beats.c` tells, as *stints*: a time in which one copy of a VM was heard from one host. A copy is one memory that goes
 * on: its numbers grow. Where a VM is heard from another host, or its number goes back, that is another copy. Pure.
 */

export interface Stint {
  /** "vm1" */
  readonly vm: string
  /** Name of the host. */
  readonly host: string
  /** Made when the VM booted. */
  readonly nonce: string
  /** First and last beat, CLOCK_MONOTONIC. */
  readonly fromMs: number
  readonly untilMs: number
  readonly beats: number
  readonly firstSeq: bigint
  readonly lastSeq: bigint
}

type Growing = { -readonly [Name in keyof Stint]: Stint[Name] }

const LINE = /^(\d+)\.(\d{9}) (\S+) (\d+) ([0-9a-f]{16}) (\d+)$/

export class BeatLog {
  readonly #hosts: ReadonlyMap<string, string>
  /** VM → in order. */
  readonly #stints = new Map<string, Growing[]>()

  /** `hosts`: port → name of the host behind it. */
  constructor(hosts: ReadonlyMap<string, string>) {
    this.#hosts = hosts
  }

  /** A line of `beats.c`. Throws TypeError for what is none. */
  take(line: string): void {
    const [, seconds, nanoseconds, port = '', number, nonce = '', text = ''] = LINE.exec(line) ?? []
    const host = this.#hosts.get(port)
    if (host === undefined) throw new TypeError(`not a line of beats.c: ${JSON.stringify(line)}`)
    const atMs = Number(seconds) * 1000 + Number(nanoseconds) / 1e6
    const [vm, seq] = [`vm${number}`, BigInt(text)]
    const stints = this.#stints.get(vm) ?? []
    this.#stints.set(vm, stints)
    const last = stints.at(-1)
    if (last !== undefined && last.host === host && last.nonce === nonce && seq > last.lastSeq) {
      last.lastSeq = seq
      last.untilMs = atMs
      last.beats++
    } else {
      stints.push({ vm, host, nonce, fromMs: atMs, untilMs: atMs, beats: 1, firstSeq: seq, lastSeq: seq })
    }
  }

  get vms(): string[] {
    return [...this.#stints.keys()].sort()
  }

  /** Of a VM, in the order in which they began. */
  stints(vm: string): readonly Stint[] {
    return this.#stints.get(vm) ?? []
  }
}
