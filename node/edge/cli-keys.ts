/** `diapause keys`: the data keys that snapshots are sealed under, and a new one by hand. */
import type { Command } from 'commander'
import type { ApiClient } from './client.ts'
import type { KeysStatus } from './cluster-view.ts'
import { table } from './format.ts'
import { type ProgressHost, whileWaiting } from './waiting.ts'

interface Options {
  readonly json?: boolean
}

/** `speaking` makes a command that speaks to a peer, which `clientOf` its options finds. */
export function keyCommands(
  diapause: Command,
  host: ProgressHost & { print(text: string): void },
  speaking: (parent: Command, nameAndArguments: string) => Command,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  const tell = (status: KeysStatus, { json }: Options, text: string): void =>
    host.print(json ? JSON.stringify(status, null, 2) : text)
  const keys = speaking(diapause, 'keys')
    .description('list the keys that snapshots are sealed under; a new one is made when a member is removed')
    .enablePositionalOptions()
    .action(async (options: Options) => {
      const status = await (await clientOf(options)).keys()
      tell(status, options, keysText(status))
    })
  speaking(keys, 'rotate')
    .description('make a new key now: what is sealed from the next epoch on opens with it only')
    .action(async (options: Options) => {
      const making = (await clientOf(options)).rotateKeys()
      const status = await whileWaiting(host, 'a new key is made and given to the members', making)
      const text = `snapshots are sealed under data key ${status.keys[0]?.id} from the next epoch on`
      tell(status, options, [text, ...lackingText(status)].join('\n'))
    })
}

export function keysText(status: KeysStatus): string {
  const { cluster, opens, keys, holders } = status
  const here = opens ? 'this peer has it' : 'this peer does not have it'
  return [
    `data keys of cluster ${cluster}: the newest is ${keys[0]?.id}; ${here}`,
    ...table([
      ['key', 'streams', 'made', 'by'],
      ...keys.map(({ id, madeMs, by, streams }) => [
        `${id}`,
        `${streams ?? '?'}`,
        madeMs === undefined ? '' : new Date(madeMs).toISOString(),
        madeMs === undefined ? "the cluster's secret" : (by ?? '')
      ])
    ]),
    `held by: ${holders.join(', ') || 'nobody'}`,
    ...lackingText(status)
  ].join('\n')
}

const lackingText = ({ holders, lacking }: KeysStatus): string[] =>
  lacking.length === 0
    ? []
    : [`waiting: ${lacking.join(', ')}: given it when one of ${holders.join(', ') || 'them'} is up`]
