/**
 * The consoles of a group's VMs, read as they grow. Each peer appends to a file of its own, `RUNDIR/console/GROUP.VM.log`;
 * after a takeover a VM's console goes on in another peer's file, so a VM's latest report is the last that came anywhere.
 */
import { closeSync, openSync, readdirSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { type BankReport, parseConsole } from '../guest/console.ts'

/** What is not yet a line is kept up to this; a bank's lines are far shorter. */
const LONGEST_LINE_BYTES = 65_536

interface Tail {
  offset: number
  rest: string
}

export interface VmConsole {
  readonly latest: BankReport
  /** When it was read, by the clock given. */
  readonly atMs: number
}

export class ConsoleWatcher {
  readonly #directories: string[]
  readonly #prefix: string
  readonly #now: () => number
  readonly #tails = new Map<string, Tail>()
  readonly #latest = new Map<number, VmConsole>()
  readonly #latestIn = new Map<string, VmConsole>()
  readonly #audits = new Map<number, Map<number, BankReport>>()
  readonly #silenceMs = new Map<number, number>()
  #countFromMs = Number.POSITIVE_INFINITY

  /** `now`: wall clock in milliseconds. */
  constructor(directories: readonly string[], group: string, now: () => number) {
    this.#directories = [...directories]
    this.#prefix = `${group}.`
    this.#now = now
  }

  /** One more: of a peer that has come later. */
  watch(directory: string): void {
    this.#directories.push(directory)
  }

  /** Reads what is new. Call it often: it is also the clock of the silences. */
  poll(): void {
    for (const directory of this.#directories)
      for (const name of listing(directory))
        if (name.startsWith(this.#prefix))
          for (const report of this.#read(join(directory, name))) this.#take(report, directory)
  }

  /** Number of the VM → its latest report. */
  get latest(): ReadonlyMap<number, VmConsole> {
    return this.#latest
  }

  /** The latest of a VM in one directory: a VM whose peer stands still talks on there, while another copy has taken over. */
  latestIn(directory: string, vm: number): VmConsole | undefined {
    return this.#latestIn.get(`${directory} ${vm}`)
  }

  /** The AUDIT reports with this id so far, one a VM, the latest of each. */
  audits(id: number): BankReport[] {
    return [...(this.#audits.get(id)?.values() ?? [])].sort((a, b) => a.vm - b.vm)
  }

  /** Begins to measure silences that end from now on. */
  countSilence(): void {
    this.#countFromMs = this.#now()
    this.#silenceMs.clear()
  }

  /** The longest silence of a VM's console that ended since `countSilence`. */
  get longestSilenceMs(): number {
    return Math.max(0, ...this.#silenceMs.values())
  }

  #take(report: BankReport, directory: string): void {
    const atMs = this.#now()
    const before = this.#latest.get(report.vm)
    if (before !== undefined && atMs >= this.#countFromMs)
      this.#silenceMs.set(report.vm, Math.max(this.#silenceMs.get(report.vm) ?? 0, atMs - before.atMs))
    this.#latest.set(report.vm, { latest: report, atMs })
    this.#latestIn.set(`${directory} ${report.vm}`, { latest: report, atMs })
    if (report.kind !== 'AUDIT') return
    const audits = this.#audits.get(report.id) ?? new Map<number, BankReport>()
    this.#audits.set(report.id, audits.set(report.vm, report))
  }

  #read(file: string): BankReport[] {
    const tail = this.#tails.get(file) ?? { offset: 0, rest: '' }
    this.#tails.set(file, tail)
    const fd = openSync(file, 'r')
    try {
      const buffer = Buffer.alloc(16_384)
      for (let n = readSync(fd, buffer, 0, buffer.length, tail.offset); n > 0; ) {
        tail.offset += n
        tail.rest += buffer.toString('latin1', 0, n)
        n = readSync(fd, buffer, 0, buffer.length, tail.offset)
      }
    } finally {
      closeSync(fd)
    }
    const end = tail.rest.lastIndexOf('\n') + 1
    const whole = tail.rest.slice(0, end)
    tail.rest = tail.rest.slice(end).slice(-LONGEST_LINE_BYTES)
    return parseConsole(whole)
  }
}

function listing(directory: string): string[] {
  try {
    return readdirSync(directory).sort()
  } catch {
    return [] // a peer that has never run a VM
  }
}
