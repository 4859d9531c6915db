/**
 * Reads what a bank printed on its console (see bank.c): BANK lines every 250 ms, AUDIT lines when asked. Pure.
 *
 * A console is a hostile text: the kernel writes between, a crash tears a line, and a VM resumed from a snapshot goes on
 * in the middle of the line it was printing at the cut, glued to whatever stands in the file. So a line counts only if
 * the hash at its end is right; everything else is skipped.
 */

/** One direction of money between this VM and another: number of transfers and their sum. */
export interface Channel {
  readonly count: number
  readonly sum: number
}

export interface BankReport {
  readonly kind: 'BANK' | 'AUDIT'
  /** Of an AUDIT; 0 in a BANK line. */
  readonly id: number
  readonly vm: number
  /** 16 hex digits, made at boot. */
  readonly nonce: string
  /** By the guest's own clock, which stands still while the VM does and goes back with it when it is rolled back. */
  readonly uptimeMs: number
  readonly money: number
  /** Number of the other VM → transfers to it, from it. */
  readonly sent: ReadonlyMap<number, Channel>
  readonly received: ReadonlyMap<number, Channel>
  /** Transfers whose number was skipped, came again, and records that made no sense. */
  readonly gaps: number
  readonly doubles: number
  readonly bad: number
  /** Connections that ended after they were established. */
  readonly broken: number
  /** Connections established now, both ways: 2 × (VMs - 1) when all are. */
  readonly conns: number
  /** Longest silence on an incoming connection since boot or `reset`. */
  readonly stallMs: number
}

/** Longer lines are not a bank's: 64 VMs with twenty-digit sums stay below. */
const LINE_LIMIT = 8192

/** Every whole report in `text`, in order. */
export function parseConsole(text: string): BankReport[] {
  const reports: BankReport[] = []
  for (const line of text.split(/\r?\n/)) {
    const report = parseLine(line)
    if (report !== undefined) reports.push(report)
  }
  return reports
}

function parseLine(line: string): BankReport | undefined {
  if (line.length > LINE_LIMIT) return undefined
  const start = Math.max(line.lastIndexOf('BANK vm='), line.lastIndexOf('AUDIT id='))
  const end = line.lastIndexOf(' sum=')
  if (start < 0 || end < start) return undefined
  const body = line.slice(start, end)
  if (fnv32(body) !== Number.parseInt(line.slice(end + 5, end + 13), 16)) return undefined

  const [kind, ...words] = body.split(' ')
  const fields = new Map(words.map(word => [word.slice(0, word.indexOf('=')), word.slice(word.indexOf('=') + 1)]))
  const number = (name: string) => Number(fields.get(name) ?? Number.NaN)
  const report: BankReport = {
    kind: kind === 'AUDIT' ? 'AUDIT' : 'BANK',
    id: kind === 'AUDIT' ? number('id') : 0,
    vm: number('vm'),
    nonce: fields.get('nonce') ?? '',
    uptimeMs: number('uptimeMs'),
    money: number('money'),
    sent: channels(fields.get('sent') ?? ''),
    received: channels(fields.get('recv') ?? ''),
    gaps: number('gaps'),
    doubles: number('doubles'),
    bad: number('bad'),
    broken: number('broken'),
    conns: number('conns'),
    stallMs: number('stallMs')
  }
  const numbers = Object.values(report).filter(value => typeof value === 'number')
  return numbers.every(Number.isFinite) && /^[0-9a-f]{16}$/.test(report.nonce) ? report : undefined
}

const TCP_LINE = /(TCP id=(\d+) vm=\d+ timeouts=(-?\d+) duplicates=(-?\d+)) sum=([0-9a-f]{8})/g

/** Of a VM's TCP, since it booted. */
export interface TcpCounts {
  readonly timeouts: number
  /** How often it was told that what it had sent again had been there. */
  readonly duplicates: number
}

/** What the VM has answered to `tcp ID`; undefined: nothing yet, or it does not know. */
export function tcpCounts(text: string, id: number): TcpCounts | undefined {
  for (const [, body = '', ofId, timeouts, duplicates, sum = ''] of text.matchAll(TCP_LINE)) {
    const counts = { timeouts: Number(timeouts), duplicates: Number(duplicates) }
    const good = fnv32(body) === Number.parseInt(sum, 16) && Math.min(counts.timeouts, counts.duplicates) >= 0
    if (good && Number(ofId) === id) return counts
  }
  return undefined
}

/** `2:123:4567,3:1:10` → number of the VM → count and sum. `-` (a bank of one VM) gives none. */
function channels(text: string): Map<number, Channel> {
  const found = new Map<number, Channel>()
  for (const [, vm, count, sum] of text.matchAll(/(\d+):(\d+):(-?\d+)/g))
    found.set(Number(vm), { count: Number(count), sum: Number(sum) })
  return found
}

/** FNV-1a, 32 bits, of Latin text. */
export function fnv32(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ (text.charCodeAt(i) & 255), 0x01000193)
  return hash >>> 0
}

/** The latest report of each VM in `reports`, by number. */
export function latest(reports: readonly BankReport[]): Map<number, BankReport> {
  return new Map(reports.map(report => [report.vm, report]))
}

export interface Conservation {
  /** The money is all there and every channel's two ends agree. */
  readonly conserved: boolean
  readonly money: number
  /** Transfers lost or doubled as the receivers counted, and records that made no sense. */
  readonly gaps: number
  readonly broken: number
  readonly stallMs: number
  /** What is wrong, in words; empty when conserved. */
  readonly faults: readonly string[]
}

/**
 * Judges one audit: one AUDIT report of each VM, all with the same id. Nothing was in flight then, so the money must be
 * `expected` and what i sent to j must be what j got from i, in number and in sum.
 */
export function conservation(audits: readonly BankReport[], expected: number): Conservation {
  const byVm = latest(audits)
  const money = sum(audits, audit => audit.money)
  const faults: string[] = []
  if (byVm.size !== audits.length) faults.push('a VM was audited twice')
  if (new Set(audits.map(audit => audit.id)).size > 1) faults.push('the reports are of different audits')
  if (money !== expected) faults.push(`the VMs hold ${money} instead of ${expected}`)
  for (const from of audits)
    for (const [to, sent] of from.sent) {
      const got = byVm.get(to)?.received.get(from.vm)
      if (got === undefined) faults.push(`VM ${to}, which VM ${from.vm} sends to, was not audited`)
      else if (got.count !== sent.count || got.sum !== sent.sum)
        faults.push(
          `VM ${from.vm} sent ${sent.count} transfers (${sent.sum}) to VM ${to}, which has ${got.count} (${got.sum})`
        )
    }
  return {
    conserved: faults.length === 0,
    money,
    gaps: sum(audits, audit => audit.gaps + audit.doubles + audit.bad),
    broken: sum(audits, audit => audit.broken),
    stallMs: Math.max(0, ...audits.map(audit => audit.stallMs)),
    faults
  }
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0)
}
