/** `vm define --from-libvirt FILE` and `--from-proxmox FILE`: a VM of another program's becomes a definition, as far as it can. */
import { readFileSync } from 'node:fs'
import { basename, extname, resolve } from 'node:path'
import type { Command } from 'commander'
import { messageOf, UsageError } from '../errors.ts'
import type { Adopted, DiskFacts } from './adopt/adopt.ts'
import { diskFacts } from './disk-file.ts'

export interface AdoptOptions {
  readonly fromLibvirt?: string
  readonly fromProxmox?: string
  /** NAME=FILE and NAME=NETWORK. */
  readonly disk?: readonly string[]
  readonly network?: readonly string[]
  readonly group?: string
  readonly print?: boolean
}

const several = (value: string, before: readonly string[] = []): string[] => [...before, value]

export function withAdoptOptions(command: Command): Command {
  return command
    .option('--from-libvirt <file>', "adopt a VM of libvirt's: what `virsh dumpxml --inactive NAME` prints")
    .option('--from-proxmox <file>', "adopt a VM of Proxmox VE's: its VMID.conf")
    .option('--disk <name=file>', 'adopt with this file (qcow2 or raw) as that disk; may be said again', several)
    .option(
      '--network <name=network>',
      'adopt with the NIC on that bridge or network on this one; may be said again',
      several
    )
    .option('--group <name>', 'adopt into a group of this name instead of that of the VM')
    .option('--print', 'print the definition of the VM that would be adopted, and make nothing')
}

/** Undefined where nothing is to be adopted. UsageErrors ADOPT_FILE, ADOPT_OPTION, ADOPT_XML, …, ADOPT_REFUSED with all reasons. */
export async function adoptedFrom(options: AdoptOptions): Promise<{ adopted: Adopted; file: string } | undefined> {
  const { fromLibvirt, fromProxmox, group } = options
  const file = fromLibvirt ?? fromProxmox
  if (file === undefined) return undefined
  if (fromLibvirt !== undefined && fromProxmox !== undefined) {
    throw new UsageError('ADOPT_OPTION', '--from-libvirt and --from-proxmox: one VM is adopted at a time')
  }
  const { adopt, withFiles } = await import('./adopt/adopt.ts')
  const text = readText(file)
  const draft =
    fromLibvirt === undefined
      ? (await import('./adopt/proxmox.ts')).readProxmox(text)
      : (await import('./adopt/libvirt.ts')).readLibvirt(text)
  const files = pairs('--disk', options.disk).map(([name, path]) => [name, resolve(path)] as const)
  const given = withFiles(draft, new Map(files))
  const facts = new Map<string, DiskFacts>()
  for (const { path } of given.disks) if (path !== undefined) facts.set(path, await diskFacts(path))
  const networks = new Map(pairs('--network', options.network))
  const fallbackName = `vm-${basename(file, extname(file))}`
  const adopted = adopt(given, facts, { group, fallbackName, networks })
  if (adopted.definition === undefined) await refuse(adopted, file)
  return { adopted, file }
}

/**
 * What `vm define` is to define: undefined where no VM is adopted, 'printed' where the definition was only to be seen. Says what is
 * not as it was, but where JSON is wanted, in which that stands.
 */
export async function adoptedRequest(
  file: string | undefined,
  options: AdoptOptions & { readonly json?: boolean },
  print: (text: string) => void
): Promise<{ readonly definition: unknown } | 'printed' | undefined> {
  const found = await adoptedFrom(options)
  if (found === undefined) {
    const { disk, network, group, print: prints } = options
    if ([disk, network, group, prints].every(option => option === undefined)) return undefined
    throw new UsageError(
      'ADOPT_OPTION',
      '--disk, --network, --group and --print go with --from-libvirt or --from-proxmox'
    )
  }
  if (file !== undefined)
    throw new UsageError('ADOPT_OPTION', `${file}: a VM is adopted, or a definition is read, not both`)
  const { definitionText, reportText } = await import('./adopt/report.ts')
  const { definition, changed, left } = found.adopted
  if (options.print !== true) {
    const report = reportText(found.adopted)
    if (report !== '' && options.json !== true) print(report)
    return { definition }
  }
  if (options.json === true) print(JSON.stringify({ definition, changed, left }, null, 2))
  else print(definitionText(found.adopted, found.file).trimEnd())
  return 'printed'
}

async function refuse({ refused }: Adopted, file: string): Promise<never> {
  const { findingLines } = await import('./adopt/report.ts')
  const lines = findingLines(refused).map(line => `  ${line}`)
  throw new UsageError('ADOPT_REFUSED', `the VM of ${file} cannot be adopted as it is:\n${lines.join('\n')}`, {
    details: { refused }
  })
}

function pairs(option: string, values: readonly string[] = []): (readonly [string, string])[] {
  return values.map(value => {
    const at = value.indexOf('=')
    if (at > 0 && at < value.length - 1) return [value.slice(0, at), value.slice(at + 1)] as const
    throw new UsageError('ADOPT_OPTION', `${option} ${value}: expected a name, "=", and what it is here`)
  })
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new UsageError('ADOPT_FILE', `cannot read ${file}: ${messageOf(cause)}`, { cause })
  }
}
