/** `diapause log`: how much a running peer's log tells. */
import { Argument, type Command } from 'commander'
import type { ApiClient } from './client.ts'
import type { LogLevel, LogStatus } from './log-view.ts'

/** As `logLevelSchema`; here, because what that needs is slow to load. */
const LEVELS = ['debug', 'info', 'warn', 'error'] as const satisfies readonly LogLevel[]
const DEFAULT = 'default'

/** `command` speaks to a peer, which `clientOf` its options finds. */
export function logCommand(
  command: Command,
  host: { print(text: string): void },
  clientOf: (options: object) => Promise<ApiClient>
): void {
  command
    .description("how much the peer's log tells; or have it tell more or less, until the peer ends")
    .addArgument(new Argument('[level]', `from now on; ${DEFAULT}: as its config says`).choices([...LEVELS, DEFAULT]))
    .action(async (level: LogLevel | typeof DEFAULT | undefined, options: { json?: boolean }) => {
      const client = await clientOf(options)
      const status =
        level === undefined ? await client.log() : await client.setLog(level === DEFAULT ? undefined : level)
      host.print(options.json ? JSON.stringify(status) : logText(status))
    })
}

export const logText = ({ level, configured }: LogStatus): string =>
  `the log is at ${level}${level === configured ? ', as its config says' : `; its config says ${configured}`}`
