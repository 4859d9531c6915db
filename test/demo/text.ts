/** The report of a demo as a person enjoys reading it. Pure: a report in, lines of text out. */
import type { Check } from '../measure.ts'
import { eventsOf, type DemoReport, type Seen, peerName } from './report.ts'

export interface Paint {
  readonly good: (text: string) => string
  readonly bad: (text: string) => string
  readonly dim: (text: string) => string
  readonly bold: (text: string) => string
}

const code = (open: number, close: number) => (text: string) => `\u001b[${open}m${text}\u001b[${close}m`
export const colours: Paint = { good: code(32, 39), bad: code(31, 39), dim: code(2, 22), bold: code(1, 22) }
const same = (text: string) => text
export const plain: Paint = { good: same, bad: same, dim: same, bold: same }

export function reportText(seen: Seen, report: DemoReport, paint: Paint): string {
  const sections = [
    timeline(seen, report, paint),
    epochTable(seen, report, paint),
    workload(report, paint),
    checkList(report.checks, paint),
    ending(seen, report, paint)
  ]
  return `\n${sections
    .filter(section => section.length > 0)
    .map(lines => lines.join('\n'))
    .join('\n\n')}\n`
}

const ms = (value: number | null) =>
  value === null ? '-' : `${value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString('en')} ms`
const count = (value: number) => value.toLocaleString('en')

export function bytes(value: number): string {
  if (value < 1e3) return `${value} B`
  if (value < 1e6) return `${(value / 1e3).toFixed(0)} kB`
  return `${(value / 1e6).toFixed(value < 1e7 ? 1 : 0)} MB`
}

/** Every step of the failure with its time since the kill. */
function timeline(seen: Seen, report: DemoReport, paint: Paint): string[] {
  const { kill } = seen
  const { failure } = report
  if (kill === undefined || failure === null) return []
  const steps: [number, string][] = [[0, paint.bad(`kill -9: ${kill.peer} dies, and ${list(kill.vms)} with it`)]]
  const dead = eventsOf(seen, 'liveness').filter(
    event => event.atMs >= kill.atMs && event.liveness !== 'alive' && peerName(seen, event.peer) === kill.peer
  )
  for (const state of ['suspect', 'dead']) {
    const told = dead.filter(event => event.liveness === state)
    const [first] = told
    if (first === undefined) continue
    const others = new Set(told.slice(1).map(event => event.by)).size
    const more = others > 0 ? `, ${others} more within ${ms((told.at(-1)?.atMs ?? 0) - first.atMs)}` : ''
    const verb = state === 'suspect' ? 'suspects' : 'declares dead'
    steps.push([
      first.atMs - kill.atMs,
      `${first.by} ${verb} ${kill.peer} ${paint.dim(`(${named(seen, first.why)})${more}`)}`
    ])
  }
  for (const event of eventsOf(seen, 'takeover.decided')
    .filter(each => each.generation === failure.generation)
    .slice(0, 1)) {
    const moves = event.lost.map(vm => `${vm} to ${peerName(seen, event.owners[vm] ?? '?')}`)
    const text = `${event.by} gets it decided: all back to epoch ${event.epoch}, ${list(moves)} (generation ${event.generation})`
    steps.push([event.atMs - kill.atMs, text])
  }
  for (const { vm, host, afterMs, spawnToRunMs } of failure.resumed) {
    const spawn = spawnToRunMs === null ? '' : paint.dim(` (${ms(spawnToRunMs)} after QEMU was spawned)`)
    steps.push([afterMs, paint.good(`${vm} runs on ${host}`) + spawn])
  }
  for (const event of eventsOf(seen, 'vm.complete').filter(each => each.atMs >= kill.atMs)) {
    const pages = `${count(event.pagesFaulted)} on demand, ${count(event.pagesPushed)} pushed`
    steps.push([event.atMs - kill.atMs, paint.dim(`${event.vm} has all its pages (${pages})`)])
  }
  steps.sort((a, b) => a[0] - b[0])
  return [paint.bold('The failure'), ...steps.map(([at, text]) => `  ${ms(at).padStart(9)}  ${text}`)]
}

/** Ids of peers in a text, which nobody reads, become names. */
function named(seen: Seen, text: string): string {
  return seen.peers.reduce((words, peer) => words.replaceAll(peer.id, peer.name), text)
}

function epochTable(seen: Seen, report: DemoReport, paint: Paint): string[] {
  if (report.epochs.length === 0) return []
  const head = [
    'epoch',
    'outcome',
    'took',
    'skew',
    'changed',
    'stored',
    'in flight',
    ...seen.vms.map(vm => `${vm} paused`)
  ]
  const rows = report.epochs.map(epoch => [
    String(epoch.number),
    epoch.outcome,
    ms(epoch.commitMs),
    ms(epoch.skewMs),
    bytes(epoch.bytesRaw),
    bytes(epoch.bytesStored),
    count(epoch.inFlightFrames),
    ...seen.vms.map(vm => ms(report.cuts.find(cut => cut.epoch === epoch.number && cut.vm === vm)?.pauseMs ?? null))
  ])
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map(row => row[column]?.length ?? 0)))
  const line = (cells: readonly string[]) =>
    `  ${cells.map((cell, column) => cell.padStart(widths[column] ?? 0)).join('  ')}`
  const reasons = report.epochs.flatMap(({ number, reason }) =>
    reason === undefined ? [] : [`  ${number} was aborted: ${reason}`]
  )
  return [paint.bold('The epochs'), paint.dim(line(head)), ...rows.map(line), ...reasons]
}

function workload(report: DemoReport, paint: Paint): string[] {
  const { workload: bank } = report
  if (bank.transfers === 0 && bank.faults.length === 0) return []
  return [
    paint.bold('The bank'),
    `  ${count(bank.transfers)} transfers over TCP; ${count(bank.moneyBefore)} coins before, ${count(bank.moneyAfter)} after`,
    `  an application's longest silence was ${ms(bank.stallMs)} by its own clock; seen from outside, a VM said nothing for ${ms(bank.outageMs)}`,
    ...bank.faults.map(fault => paint.bad(`  ${fault}`))
  ]
}

function checkList(checks: readonly Check[], paint: Paint): string[] {
  const width = Math.max(...checks.map(check => check.name.length))
  const line = ({ name, value, unit, bound, ok }: Check) => {
    const shown =
      typeof value === 'number' ? `${Number(value.toFixed(1)).toLocaleString('en')} ${unit}`.trim() : String(value)
    return `  ${ok ? paint.good('✓') : paint.bad('✗')} ${name.padEnd(width)}  ${shown.padStart(12)}  ${paint.dim(bound)}`
  }
  return [paint.bold('The checks'), ...checks.map(line)]
}

function ending(seen: Seen, report: DemoReport, paint: Paint): string[] {
  const left = (seen.leftovers ?? []).map(each => paint.bad(`  left behind: ${each}`))
  if (seen.error !== undefined) return [...left, paint.bad(`The demo stopped early: ${seen.error}`)]
  if (!report.ok) {
    const failed = report.checks.filter(check => !check.ok).map(check => check.name)
    return [...left, paint.bad(`Not every check held: ${failed.join(', ')}.`)]
  }
  const { failure } = report
  return [
    paint.good(
      `A host died; ${ms(failure?.resumedMs ?? null)} later every VM ran again, and no application lost a byte.`
    )
  ]
}

/** "a", "a and b", "a, b and c"; "nothing" for none. */
export function list(items: readonly string[]): string {
  if (items.length === 0) return 'nothing'
  return items.length === 1 ? String(items[0]) : `${items.slice(0, -1).join(', ')} and ${items.at(-1)}`
}
