/** `diapause status`, `events` and `snapshot`: what a peer sees and did, and one thing that it is asked for most. */
import { InvalidArgumentError, type Command } from 'commander'
import { DiapauseError } from '../errors.ts'
import type { ApiClient } from './client.ts'
import { sentenceOf, toldError } from './explain.ts'
import { eventText, statusText } from './format.ts'
import { CLEAR, painted, type Terminal } from './terminal.ts'
import { type ProgressHost, whileWaiting } from './waiting.ts'

/** The machine, as these commands need it. */
export interface StatusHost extends ProgressHost {
  readonly terminal: Terminal
  print(text: string): void
  interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T>
}

interface Shared {
  readonly json?: boolean
}

/** How often `--watch` looks. A guess: what people can follow. */
const WATCH_S = 2

/** `speaking` makes a command that speaks to a peer, which `clientOf` its options finds. */
export function statusCommands(
  speaking: (nameAndArguments: string) => Command,
  host: StatusHost,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  speaking('status')
    .description('show the peer, the members as it sees them, its groups and its store')
    .option('--watch', 'show it again and again, until Ctrl-C')
    .option('--every <seconds>', 'for --watch: how often', seconds, WATCH_S)
    .action(async (options: Shared & { watch?: boolean; every: number }) => {
      const client = await clientOf(options)
      if (options.watch === true) await watch(client, options, host)
      else {
        const status = await client.status()
        host.print(options.json ? JSON.stringify(status, null, 2) : painted(statusText(status), host.terminal))
      }
    })
  speaking('events')
    .description('show what happened at the peer')
    .option('--follow', 'go on with what happens from now on')
    .action(async (options: Shared & { follow?: boolean }) => {
      const client = await clientOf(options)
      for await (const event of client.events({ follow: options.follow === true })) {
        host.print(options.json ? JSON.stringify(event) : eventText(event))
      }
    })
  speaking('snapshot <group>')
    .description('take a snapshot of a group now; fails (1) where it is aborted')
    .action(async (group: string, options: Shared) => {
      const client = await clientOf(options)
      const result = await whileWaiting(host, `a snapshot of ${group} is taken`, client.takeEpoch(group))
      const why = result.reason === undefined ? '' : `: ${result.reason}`
      host.print(options.json ? JSON.stringify(result) : `epoch ${result.epoch} of ${group} ${result.outcome}${why}`)
      if (result.outcome === 'aborted')
        throw new DiapauseError('EPOCH_ABORTED', `epoch ${result.epoch} was aborted${why}`)
    })
}

/** On a terminal in the place of what was shown before; else one after the other, as JSON a line each. */
function watch(
  client: ApiClient,
  { json, every }: { readonly json?: boolean; readonly every: number },
  { terminal, print, interruptible }: StatusHost
): Promise<void> {
  return interruptible(async signal => {
    while (!signal.aborted) {
      const text = await client.status(signal).then(
        status => (json ? JSON.stringify(status) : painted(statusText(status), terminal)),
        (error: unknown) => (json ? JSON.stringify({ error: toldError(error) }) : sentenceOf(error))
      )
      if (signal.aborted) return
      if (terminal.shows && !json) terminal.write(`${CLEAR}${text}\n`)
      else print(text)
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, every * 1_000)
        signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true })
      })
    }
  })
}

function seconds(text: string): number {
  const value = Number(text)
  if (/^\d{1,4}(\.\d{1,3})?$/.test(text) && value >= 0.1) return value
  throw new InvalidArgumentError('It is a number of seconds, at least 0.1.')
}
