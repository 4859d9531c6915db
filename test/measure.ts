/**
 * The one form of everything that measures (`demo`, `bench`, `sim`): checks with bounds, the machine they ran on, details.
 * A number without its machine and its bound says nothing a year later.
 */
import { execFile } from 'node:child_process'
import { accessSync, constants, writeFileSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { promisify } from 'node:util'
import { table } from '../node/edge/format.ts'
import { UsageError, messageOf } from '../node/errors.ts'

export interface Check {
  readonly name: string
  readonly value: number | string | boolean
  /** e.g. "ms", "GB/s"; empty where there is none. */
  readonly unit: string
  /** What the value must be, for people: "< 60", "true". Empty: reported only, and then `ok` is true. */
  readonly bound: string
  readonly ok: boolean
}

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  readonly kernel: string
  readonly node: string
  /** Empty where QEMU is not installed. */
  readonly qemu: string
  /** What VMs ran in, where there were any. `kvm?`: /dev/kvm opens, which does not say that it runs a guest. */
  readonly accel: string
}

export interface Report {
  readonly name: string
  readonly machine: Machine
  readonly checks: readonly Check[]
  readonly [detail: string]: unknown
}

// ---------------------------------------------------------------------------------------------- making checks

export const atMost = (name: string, value: number, bound: number, unit: string): Check => ({
  name,
  value,
  unit,
  bound: `<= ${bound}`,
  ok: value <= bound
})

export const below = (name: string, value: number, bound: number, unit: string): Check => ({
  name,
  value,
  unit,
  bound: `< ${bound}`,
  ok: value < bound
})

export const atLeast = (name: string, value: number, bound: number, unit: string): Check => ({
  name,
  value,
  unit,
  bound: `>= ${bound}`,
  ok: value >= bound
})

export const equal = (name: string, value: number | string | boolean, bound: typeof value, unit = ''): Check => ({
  name,
  value,
  unit,
  bound: String(bound),
  ok: value === bound
})

/** A number that is worth knowing and promises nothing. */
export const note = (name: string, value: number | string | boolean, unit = ''): Check => ({
  name,
  value,
  unit,
  bound: '',
  ok: true
})

// ---------------------------------------------------------------------------------------------- the machine

/** `accel`: what the VMs of the measurement ran in, where that is known. */
export async function machineFacts(accel?: string): Promise<Machine> {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.versions.node,
    qemu: await qemuVersion(),
    accel: accel ?? (canOpen('/dev/kvm') ? 'kvm?' : 'tcg')
  }
}

async function qemuVersion(): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)('qemu-system-x86_64', ['--version'])
    return /version (\S+)/.exec(stdout)?.[1] ?? ''
  } catch {
    return ''
  }
}

function canOpen(file: string): boolean {
  try {
    accessSync(file, constants.R_OK | constants.W_OK)
    return true
  } catch {
    return false
  }
}

// ---------------------------------------------------------------------------------------------- reports

/** UsageError REPORT_FILE, as `writeText`. */
export function writeReport(file: string, report: Report): void {
  writeText(file, `${JSON.stringify(report, null, 2)}\n`)
}

/** UsageError REPORT_FILE where the file cannot be written. */
export function writeText(file: string, text: string): void {
  try {
    writeFileSync(file, text)
  } catch (cause) {
    throw new UsageError('REPORT_FILE', `cannot write the report to ${file}: ${messageOf(cause)}`, { cause })
  }
}

/** 0 where every check is ok. */
export const exitCode = (report: Report): number => (report.checks.every(check => check.ok) ? 0 : 1)

/** A table for people. `color` only for terminals. */
export function reportText(report: Report, color: boolean): string {
  const { cpu, cores, memoryGiB, kernel, node, qemu, accel } = report.machine
  const paint = (code: number, text: string): string => (color ? `\u001B[${code}m${text}\u001B[0m` : text)
  const rows = report.checks.map(check => [check.name, valueText(check), check.bound])
  const [head = '', ...lines] = table([['', 'value', 'bound'], ...rows])
  const marks = lines.map((line, at) => (report.checks[at]?.ok ? paint(32, 'ok    ') : paint(31, 'FAILED')) + line)
  const failed = report.checks.filter(check => !check.ok).length
  return [
    paint(1, report.name),
    `${cpu}, ${cores} cores, ${memoryGiB} GiB, Linux ${kernel}, Node ${node}, QEMU ${qemu || 'none'}, ${accel}`,
    '',
    `      ${head}`,
    ...marks,
    '',
    failed === 0 ? paint(32, `all ${rows.length} checks hold`) : paint(31, `${failed} of ${rows.length} checks failed`)
  ].join('\n')
}

function valueText({ value, unit }: Check): string {
  const number = typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value
  return `${number} ${unit}`.trimEnd()
}
