/** `diapause policy`: when the epochs of a group are taken by themselves; what another policy would have done with its past. */
import { type Command, Option } from 'commander'
import type { PolicyKind } from '../../config/policy.ts'
import { availabilityOf, FAILURE_EVERY_MS } from '../../protocols/epoch/policy-outcome.ts'
import { UsageError } from '../errors.ts'
import type { ApiClient } from './client.ts'
import { bytesText, durationText, table } from './format.ts'
import type { GroupPolicy, PolicySimulation } from './policy-view.ts'

interface Options {
  readonly json?: boolean
  readonly failsEvery?: number
}

/** As people give a policy on the command line. */
export interface PolicyOptions {
  readonly policy: string
  readonly every?: number
  readonly size?: number
  readonly overhead?: number
  readonly loss?: number
  readonly atLeast?: number
  readonly atMost?: number
  readonly window?: readonly string[]
  readonly otherwise?: number
  readonly timeZone?: string
  readonly name?: string
  readonly setting?: readonly string[]
}

const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** `speaking` makes a command that speaks to a peer, which `clientOf` its options finds. */
export function policyCommands(
  diapause: Command,
  host: { print(text: string): void },
  speaking: (parent: Command, nameAndArguments: string) => Command,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  const policy = diapause
    .command('policy')
    .description('when the snapshots of a group are taken by themselves, what they cost, and what other ways would')
  const show = async (group: string, options: Options): Promise<void> => {
    const found = await (await clientOf(options)).policy(group)
    host.print(options.json ? JSON.stringify(found, null, 2) : policyShownText(found, options.failsEvery))
  }
  withFailures(speaking(policy, 'show <group>'))
    .description('the policy of a group, when its next snapshot is due, and what the last ones cost')
    .action(show)
  withPolicyOptions(speaking(policy, 'set <group>'), 'or default: as the config of the peers says', ['default'])
    .description('take the snapshots of a group by another policy, from now on')
    .action(async (group: string, options: Options & PolicyOptions) => {
      const wish = options.policy === 'default' ? undefined : policyOf(options)
      await (await clientOf(options)).setPolicy(group, wish)
      await show(group, options)
    })
  withFailures(withPolicyOptions(speaking(policy, 'simulate <group>'), 'of which kind it is'))
    .description('replay what the peer remembers of a group through a policy: pause, loss and cost, beside what was')
    .action(async (group: string, options: Options & PolicyOptions) => {
      const found = await (await clientOf(options)).simulatePolicy(group, policyOf(options))
      host.print(options.json ? JSON.stringify(found, null, 2) : simulationText(found, options.failsEvery))
    })
}

const withFailures = (command: Command): Command =>
  command.option('--fails-every <time>', 'for the part of the time that counts: a host is lost so often (30d)', timeOf)

const several = (value: string, before: readonly string[] = []): string[] => [...before, value]

const KINDS = ['interval', 'delta-size', 'adaptive', 'windows', 'own'] as const satisfies readonly PolicyKind[]

function withPolicyOptions(command: Command, about: string, others: readonly string[] = []): Command {
  const policy = new Option('--policy <kind>', about)
  return command
    .addOption(policy.choices([...KINDS, ...others]).makeOptionMandatory())
    .option('--every <time>', 'interval: such as 10s or 500ms', timeOf)
    .option('--size <MiB>', 'delta-size: when so much has changed', numberOf)
    .option('--overhead <percent>', 'adaptive: of their time the VMs may lose so much', numberOf)
    .option('--loss <time>', 'adaptive: so much may be lost with a host', timeOf)
    .option('--at-least <time>', 'adaptive, delta-size: the shortest interval', timeOf)
    .option('--at-most <time>', 'adaptive, delta-size: the longest interval', timeOf)
    .option('--window <cron=time>', 'windows: such as "* 8-17 * * 1-5=10s"; may be repeated, the first counts', several)
    .option('--otherwise <time>', 'windows: the interval at all other times; 0s: none', timeOf)
    .option('--time-zone <zone>', 'windows: such as Europe/Athens')
    .option('--name <policy>', 'own: its name under [policies] in the config of the peers')
    .option('--setting <key=value>', 'own: given to the module; may be repeated', several)
}

/** What is given, by the names of `config/policy.ts`; the peer says what is missing or too much. */
export function policyOf(options: PolicyOptions): Record<string, unknown> {
  const { policy: kind, every, size, overhead, loss, atLeast, atMost, otherwise, timeZone, name } = options
  const windows = options.window?.map(windowOf)
  const settings = options.setting && Object.fromEntries(options.setting.map(settingOf))
  const all = {
    kind,
    everyMs: every,
    mebibytes: size,
    overheadPercent: overhead,
    lossMs: loss,
    atLeastMs: atLeast,
    atMostMs: atMost,
    windows,
    otherwiseMs: otherwise,
    timeZone,
    name,
    settings
  }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}

function windowOf(text: string): { cron: string; everyMs: number } {
  const at = text.lastIndexOf('=')
  if (at > 0) return { cron: text.slice(0, at).trim(), everyMs: timeOf(text.slice(at + 1)) }
  throw new UsageError('CLI_WINDOW', `${JSON.stringify(text)} is not a window such as "* 8-17 * * 1-5=10s"`)
}

function settingOf(text: string): [string, string | number | boolean] {
  const at = text.indexOf('=')
  if (at < 1) throw new UsageError('CLI_SETTING', `${JSON.stringify(text)} is not a setting such as calm=true`)
  const value = text.slice(at + 1)
  const isNumber = value.trim() !== '' && Number.isFinite(Number(value))
  return [
    text.slice(0, at),
    value === 'true' || value === 'false' ? value === 'true' : isNumber ? Number(value) : value
  ]
}

function timeOf(text: string): number {
  const [, count = '', unit = ''] = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)$/.exec(text) ?? []
  const unitMs = UNITS_MS[unit]
  if (unitMs !== undefined) return Math.round(Number(count) * unitMs)
  throw new UsageError('CLI_TIME', `${JSON.stringify(text)} is not a time such as 10s, 500ms, 2m or 1h`)
}

function numberOf(text: string): number {
  if (/^\d{1,9}(\.\d{1,6})?$/.test(text)) return Number(text)
  throw new UsageError('CLI_NUMBER', `${JSON.stringify(text)} is not a number`)
}

export function policyShownText(found: GroupPolicy, failureEveryMs = FAILURE_EVERY_MS): string {
  const { group, text, own, keeper, next, nowMs, failed, costs } = found
  const of = own ? 'its own' : "the config's"
  const due =
    next === null
      ? 'no snapshot is due by itself'
      : `the next is due ${next.atMs <= nowMs ? 'now' : `in ${timeText(next.atMs - nowMs)}`} (${next.why})`
  const lines = [`group ${group}: ${text} (${of}); ${keeper} takes its snapshots`]
  if (failed === undefined) lines.push(due)
  else lines.push(`it gives no answer here, and the interval of the config stands in: ${failed}`)
  if (costs === null) return [...lines, 'what snapshots cost is not known yet'].join('\n')
  const down =
    costs.downMs === null ? 'no restore was measured yet' : `back ${timeText(costs.downMs)} after a host died`
  return [
    ...lines,
    `of the last ${costs.epochs}, usually: every ${timeText(costs.intervalMs)}, paused ${timeText(costs.pauseMs)}, made in ${timeText(costs.creationMs)}, committed ${timeText(costs.mergeMs)} later; ${bytesText(costs.changedBytes)} changed, ${bytesText(costs.storedBytes)} stored`,
    `that is ${percent(costs.overhead)} overhead; with a host ${timeText(costs.lossMeanMs)} are lost on average, ${timeText(costs.lossWorstMs)} at the worst; ${down}`,
    `of the time ${fine(availabilityOf({ ...costs, lossMs: costs.lossMeanMs, downMs: costs.downMs ?? 0 }, failureEveryMs))} counts, where a host is lost every ${durationText(failureEveryMs)}`
  ].join('\n')
}

export function simulationText(found: PolicySimulation, failureEveryMs = FAILURE_EVERY_MS): string {
  const { group, text, why, was, wouldBe } = found
  const row = (name: string, of: (outcome: typeof was) => string): string[] => [name, of(was), of(wouldBe)]
  return [
    `group ${group} over ${durationText(was.overMs)}, with ${text}`,
    ...table([
      ['', 'was', 'would be'],
      row('snapshots', ({ epochs, aborted }) => (aborted === 0 ? `${epochs}` : `${epochs} (${aborted} aborted)`)),
      row('usual interval', ({ intervalMs }) => timeText(intervalMs.median)),
      row('longest interval', ({ intervalMs }) => timeText(intervalMs.most)),
      row('usual pause', ({ pauseMs }) => timeText(pauseMs.median)),
      row('longest pause', ({ pauseMs }) => timeText(pauseMs.most)),
      row('paused in all', ({ pauseMs }) => timeText(pauseMs.total)),
      row('overhead', ({ overhead }) => percent(overhead)),
      row('lost on average', ({ lossMs }) => timeText(lossMs.mean)),
      row('lost at the worst', ({ lossMs }) => timeText(lossMs.most)),
      row(`counts, a host lost every ${durationText(failureEveryMs)}`, ({ overhead, lossMs }) =>
        fine(availabilityOf({ overhead, lossMs: lossMs.mean, downMs: 0 }, failureEveryMs))
      ),
      row('changed', ({ changedBytes }) => bytesText(changedBytes)),
      row('stored', ({ storedBytes }) => bytesText(storedBytes))
    ]),
    ...(why === '' ? [] : [`it said last: ${why}`])
  ].join('\n')
}

/** Five nines are seen. */
const fine = (part: number): string => `${(100 * part).toFixed(3)} %`

const percent = (part: number): string => `${(100 * part).toFixed(part < 0.01 ? 2 : 1)} %`

const timeText = (ms: number): string => {
  if (ms < 10) return `${ms.toFixed(1)} ms`
  return ms < 1_000 ? `${Math.round(ms)} ms` : durationText(ms)
}
