/** `diapause export` writes a VM's image as a directory of files that a stock QEMU starts; `diapause import` takes one. */
import type { Command } from 'commander'
import { DiapauseError, UsageError } from '../errors.ts'
import type { ApiClient } from './client.ts'
import { type ProgressHost, whileWaiting } from './waiting.ts'

/** The machine, as these commands need it. */
export interface ImageHost extends ProgressHost {
  print(text: string): void
  /** Does `work`, whose signal aborts when the person interrupts it. */
  interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T>
}

interface Shared {
  readonly json?: boolean
}

/** `speaking` makes a command that speaks to a peer, which `clientOf` its options finds. */
export function imageCommands(
  speaking: (nameAndArguments: string) => Command,
  host: ImageHost,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  speaking('export <vm>')
    .description('write a VM as it was at an epoch to a new directory, with a script that starts it in any QEMU')
    .requiredOption('--out <dir>', 'the directory, which must not be there yet')
    .option('--epoch <number>', 'an epoch that is kept (default: the last one)', epochNumber)
    .option('--group <group>', 'its group, where VMs of several groups have that name')
    .action(async (vm: string, options: Shared & { out: string; epoch?: number; group?: string }) => {
      const { out, epoch } = options
      const client = await clientOf(options)
      const group = options.group ?? (await groupOf(client, vm))
      const { exportTo } = await import('./image-folder.ts')
      const { image, files } = await interruptibly(host, `the image of ${vm} is gathered`, (signal, progress) =>
        exportTo(out, client, { group, vm, epoch }, { progress, signal })
      )
      const text = `VM ${vm} of group ${group} at epoch ${image.epoch} is in ${out}: start it with ${out}/run.sh`
      host.print(options.json ? JSON.stringify({ directory: out, image, files }, null, 2) : text)
    })
  speaking('import <dir>')
    .description('make a group of one VM that goes on from an exported directory')
    .option('--group <group>', 'the name of the new group (default: that of the group it comes from)')
    .option('--owner <peer>', 'the member that is to run it (default: the cluster chooses)')
    .action(async (dir: string, options: Shared & { group?: string; owner?: string }) => {
      const { readDirectory, recordsOf } = await import('./image-folder.ts')
      const directory = await whileWaiting(host, `${dir} is read`, readDirectory(dir))
      const { image: about } = directory
      const wish = { group: options.group ?? about.group, about, ...(options.owner && { owner: options.owner }) }
      const client = await clientOf(options)
      const record = await interruptibly(host, 'the image is sent', (signal, progress) =>
        client.importImage(recordsOf(dir, directory, wish, progress), signal)
      )
      const text = `group ${record.id} with VM ${about.spec.id} goes on from epoch ${about.epoch} of group ${about.group}`
      host.print(options.json ? JSON.stringify(record, null, 2) : text)
    })
}

/** `what` is waited for at first; `progress` says what after that. */
function interruptibly<T>(
  host: ImageHost,
  what: string,
  work: (signal: AbortSignal, progress: (text: string) => void) => Promise<T>
): Promise<T> {
  return host.interruptible(async signal => {
    try {
      return await whileWaiting(host, what, now => work(signal, now))
    } catch (cause) {
      throw signal.aborted ? new DiapauseError('INTERRUPTED', 'interrupted: nothing is left of it', { cause }) : cause
    }
  })
}

function epochNumber(text: string): number {
  if (/^\d{1,15}$/.test(text)) return Number(text)
  throw new UsageError('CLI_EPOCH', `${JSON.stringify(text)} is not the number of an epoch`)
}

async function groupOf(client: ApiClient, vm: string): Promise<string> {
  const found = (await client.groups()).filter(({ vms }) => vms.some(({ id }) => id === vm)).map(({ id }) => id)
  const [only, ...others] = found
  if (only !== undefined && others.length === 0) return only
  if (only === undefined) throw new UsageError('VM_UNKNOWN', `there is no VM ${vm} in any group that the peer knows`)
  throw new UsageError('GROUP_MISSING', `groups ${found.join(', ')} have a VM ${vm}: say which with --group`)
}
