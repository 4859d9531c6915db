/** `diapause epochs`: which epochs of a group are kept, and why; `diapause restore` goes back to one. */
import type { Command } from 'commander'
import type { ApiClient } from './client.ts'
import { confirm, type Question } from './confirm.ts'
import type { GroupEpochs, PolicyWish } from './epoch-view.ts'
import { bytesText, durationText, table } from './format.ts'
import type { Terminal } from './terminal.ts'
import { type ProgressHost, whileWaiting } from './waiting.ts'
import { wholeNumber } from './whole-number.ts'

interface Options {
  readonly json?: boolean
}

const HOLD_NAME = 'by-hand'

/** `speaking` makes a command that speaks to a peer, which `clientOf` its options finds. */
export function epochCommands(
  diapause: Command,
  host: ProgressHost & { readonly terminal: Terminal; print(text: string): void },
  speaking: (parent: Command, nameAndArguments: string) => Command,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  const list = async (group: string, options: Options): Promise<void> => {
    const epochs = await (await clientOf(options)).epochs(group)
    host.print(options.json ? JSON.stringify(epochs, null, 2) : epochsText(epochs))
  }
  const epochs = speaking(diapause, 'epochs <group>')
    .description('list the epochs of a group that can be restored and exported; hold, release and rm change which')
    .enablePositionalOptions()
    .action(list)
  speaking(epochs, 'hold <group> <epoch>')
    .description('keep an epoch, whatever the policy says, until it is released')
    .option('--name <name>', 'what for', HOLD_NAME)
    .action(async (group: string, epoch: string, options: Options & { name: string }) => {
      await (await clientOf(options)).holdEpoch(group, wholeNumber(epoch), options.name)
      await list(group, options)
    })
  speaking(epochs, 'release <group> <epoch>')
    .description('hold an epoch no longer: the policy counts again from the next one on')
    .option('--name <name>', 'this hold only (default: all holds of the epoch)')
    .action(async (group: string, epoch: string, options: Options & { name?: string }) => {
      await (await clientOf(options)).releaseEpoch(group, wholeNumber(epoch), options.name)
      await list(group, options)
    })
  speaking(epochs, 'rm <group> <epoch>')
    .description('keep an epoch no longer: its place on disk is free within seconds, for as far as no other needs it')
    .action(async (group: string, epoch: string, options: Options) => {
      await (await clientOf(options)).removeEpoch(group, wholeNumber(epoch))
      await list(group, options)
    })
  speaking(epochs, 'policy <group>')
    .description('say how many epochs of a group are kept from the next one on; what is not named stays')
    .option('--last <count>', 'the newest', wholeNumber)
    .option('--hourly <count>', 'the last one of so many hours', wholeNumber)
    .option('--daily <count>', 'the last one of so many days', wholeNumber)
    .option('--weekly <count>', 'the last one of so many weeks', wholeNumber)
    .action(async (group: string, options: Options & PolicyWish & { last?: number }) => {
      const { last: keepLast, hourly, daily, weekly } = options
      await (await clientOf(options)).setRetention(group, { keepLast, hourly, daily, weekly })
      await list(group, options)
    })
  speaking(diapause, 'restore <group>')
    .description('start all VMs of a group again from an epoch; what they did since is lost, but not what is kept')
    .option('--epoch <number>', 'an epoch that is kept (default: the last committed)', wholeNumber)
    .option('--force', 'also where the outside has been told what is taken back now (outputCommit)')
    .option('--yes', 'do not ask')
    .action(async (group: string, options: Options & { epoch?: number; force?: boolean; yes?: boolean }) => {
      const { epoch, force = false } = options
      const client = await clientOf(options)
      if (options.yes !== true && !(await rests(client, group)))
        await confirm(host, () => restoreOf(client, group, epoch))
      const deciding = client.restore(group, { epoch, force })
      const record = await whileWaiting(host, `it is decided that ${group} goes back`, deciding)
      const text = `group ${record.id} goes on from epoch ${record.committed?.epoch} in generation ${record.generation}`
      host.print(options.json ? JSON.stringify(record, null, 2) : text)
    })
}

/** Nothing of it runs that could be lost. */
const rests = async (client: ApiClient, group: string): Promise<boolean> =>
  (await client.groups()).some(({ id, resting }) => id === group && resting === true)

async function restoreOf(client: ApiClient, group: string, epoch: number | undefined): Promise<Question> {
  const { epochs } = await client.epochs(group)
  const chosen = epochs.find(each => (epoch === undefined ? each.committed : each.epoch === epoch))
  const { wallMs } = chosen ?? {}
  const ago = wallMs === undefined ? '' : `, of ${durationText(Math.max(0, Date.now() - wallMs))} ago`
  return {
    whether: `whether ${group} goes back`,
    ask: `Take all VMs of ${group} back to epoch ${chosen?.epoch ?? epoch ?? '?'}${ago}, and lose what they did since the last one?`,
    otherwise: 'nothing went back'
  }
}

export function epochsText({ group, policy, own, room, epochs }: GroupEpochs): string {
  const { keepLast, hourly, daily, weekly } = policy
  const longer = Object.entries({ hourly, daily, weekly }).flatMap(([each, count]) =>
    count > 0 ? `, ${each} ${count}` : []
  )
  const of = own ? 'its own' : "the config's"
  return [
    `group ${group} keeps the newest ${keepLast}${longer.join('')} (policy: ${of}); its record has room for ${room}`,
    ...table([
      ['epoch', 'committed', 'stored', 'generation', 'held by', ''],
      ...epochs.map(({ epoch, wallMs, bytesStored, generation, holds, readers, committed }) => [
        `${epoch}`,
        wallMs === undefined ? '?' : new Date(wallMs).toISOString(),
        bytesStored === undefined ? '?' : bytesText(bytesStored),
        `${generation}`,
        holds.join(', '),
        [...(committed ? ['a restore begins here'] : []), ...(readers > 0 ? [`read by ${readers}`] : [])].join(', ')
      ])
    ])
  ].join('\n')
}
