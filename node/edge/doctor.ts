/** `diapause doctor`: what this host can do, found out by trying, and what to do about what it cannot. Runs without a peer. */
import type { Command } from 'commander'
import type { Config } from '../../config/schema.ts'
import { DiapauseError } from '../errors.ts'
import type { Finding } from '../ports.ts'
import { table } from './format.ts'
import { type ProgressHost, whileWaiting } from './waiting.ts'

/** Of a check that has begun: `what` is its name. */
export type Trying = <T>(what: string, found: Promise<T>) => Promise<T>

export interface DoctorHost extends ProgressHost {
  loadConfig(file: string): Promise<Config>
  /** Undefined: no config is named, and defaults are checked. */
  examine(config: Config | undefined, trying: Trying): Promise<readonly Finding[]>
  print(text: string): void
}

export function doctorCommand(parent: Command, host: DoctorHost, defaultConfigFile: string | undefined): void {
  parent
    .command('doctor')
    .description(
      'check what this host needs to run VMs: QEMU, accelerator, capture, room; fails (1) where some of it is broken'
    )
    .option('--config <file>', "the peer's config file; without one the defaults are checked", defaultConfigFile)
    .option('--json', 'print JSON')
    .action(async (options: { config?: string; json?: boolean }) => {
      const config = options.config === undefined ? undefined : await host.loadConfig(options.config)
      const findings = await host.examine(config, (what, found) => whileWaiting(host, `${what} is tried`, found))
      const broken = findings.filter(({ state }) => state === 'broken')
      const report = { ok: broken.length === 0, findings }
      host.print(options.json ? JSON.stringify(report, null, 2) : doctorText(findings))
      if (broken.length === 0) return
      const names = broken.map(({ check }) => check).join(', ')
      throw new DiapauseError('DOCTOR_BROKEN', `this host cannot run VMs: ${names}`)
    })
}

/** A line for each finding, and one below it where there is something to do. */
export function doctorText(findings: readonly Finding[]): string {
  const rows = findings.flatMap(({ check, state, says, fix }) => [
    [check, state, oneLine(says)],
    ...(fix === undefined ? [] : [['', '', `→ ${oneLine(fix)}`]])
  ])
  return table(rows).join('\n')
}

/** What QEMU says may have several. */
const oneLine = (text: string): string => text.replaceAll(/\s+/g, ' ')
