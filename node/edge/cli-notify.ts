/** `diapause notify`: whom people are told by, and a test of it. */
import type { Command } from 'commander'
import { DiapauseError } from '../errors.ts'
import type { ApiClient } from './client.ts'
import { table } from './format.ts'
import type { TargetStatus, TargetTest } from './notification-view.ts'

interface Options {
  readonly json?: boolean
}

/** `speaking` makes a command that speaks to a peer, which `clientOf` its options finds. */
export function notifyCommands(
  diapause: Command,
  host: { print(text: string): void },
  speaking: (parent: Command, nameAndArguments: string) => Command,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  const tell = (answer: object, { json }: Options, text: string): void =>
    host.print(json ? JSON.stringify(answer, null, 2) : text)
  const notify = speaking(diapause, 'notify')
    .description('list whom this peer tells of failovers and of what needs a person')
    .enablePositionalOptions()
    .action(async (options: Options) => {
      const targets = await (await clientOf(options)).notifications()
      tell(targets, options, targetsText(targets))
    })
  speaking(notify, 'test [target]')
    .description(
      'send a test message from this peer to all its targets, or to one; fails (1) where one does not take it'
    )
    .action(async (name: string | undefined, options: Options) => {
      const tests = await (await clientOf(options)).testNotifications(name)
      tell(tests, options, testsText(tests))
      const failed = tests.filter(test => test.failed !== undefined)
      if (failed.length === 0) return
      throw new DiapauseError('NOTIFY_FAILED', `not told: ${failed.map(test => test.name).join(', ')}`)
    })
}

const NONE = 'this peer tells nobody: put [[notifications]] into its config'

export function targetsText(targets: readonly TargetStatus[]): string {
  if (targets.length === 0) return NONE
  const rows = targets.map(({ name, way, teller, waiting, last, on }) => [
    name,
    way,
    teller,
    `${waiting}`,
    last === null ? 'nothing yet' : lastText(last),
    on.join(', ')
  ])
  return table([['target', 'by', 'told by', 'waiting', 'last from here', 'on'], ...rows]).join('\n')
}

function lastText({ atMs, failed }: NonNullable<TargetStatus['last']>): string {
  const at = new Date(atMs).toISOString()
  return failed === undefined ? at : `${at}: ${failed}`
}

const testsText = (tests: readonly TargetTest[]): string =>
  tests
    .map(({ name, tookMs, failed }) => (failed === undefined ? `${name}: told in ${Math.round(tookMs)} ms` : failed))
    .join('\n')
