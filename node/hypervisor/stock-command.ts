/**
 * The command line with which a QEMU that knows nothing of diapause goes on from an exported image, as a shell script: the
 * driver's own, which makes machine and devices what the stream holds, without what ties it to a peer. Pure.
 */
import type { NicEnd } from '../ports.ts'
import { disksOf, leadsOutside, nicsOf, type VmSpec } from '../../protocols/group.ts'
import { type Accel, commonArguments, machineArguments } from './command-line.ts'
import { chainsOf, diskArguments } from './disk-chain.ts'

export const RAM_FILE = 'ram.migration'
/** Where the guest's agent is spoken to, if the VM has one. */
const AGENT_SOCKET = 'agent.socket'
export const diskFile = (disk: number): string => `disk${disk}.qcow2`

const common = commonArguments('tcg', '')
/** As migration streams name it. */
export const MACHINE_NAME = (common[common.indexOf('-machine') + 1] ?? '').split(',')[0] ?? ''

/** Arguments of the driver that a stock QEMU does without, each with the value behind it, if it has one. */
const OURS = new Set(
  '-name -no-shutdown -qmp -chardev -serial -netdev -kernel -initrd -append -object -blockdev'.split(' ')
)
const WITHOUT_VALUE = new Set(['-no-user-config', '-nodefaults', '-no-shutdown'])

/** `title`: what it is, one line. The script's own arguments go to QEMU; QEMU and SERIAL of its environment, too. */
export function stockScript({ accel, spec, title }: { accel: Accel; spec: VmSpec; title: string }): string {
  const ends = nicsOf(spec).map((): NicEnd => ({ kind: 'stream', path: '' }))
  const paths = { qmp: '', consoleLog: '' }
  const chains = chainsOf(spec, '', [])
  const tops = new Map(chains.map(chain => [chain.top, `d${chain.disk}`]))
  const disks = diskArguments(chains, spec)
  const options = { accel, guest: '', spec, ends, paths, disks, incoming: false, sharedRam: false }
  const devices = kept(machineArguments(options)).map(words => words.map(word => quoted(onDisk(word, tops))).join(' '))
  // A NIC on a hub of its own is plugged into nothing.
  const nets = nicsOf(spec).map(({ network }, i) =>
    leadsOutside(network) ? `-netdev user,id=n${i}` : `-netdev hubport,id=n${i},hubid=${i}`
  )
  const agent =
    spec.guestAgent === undefined ? [] : [`-chardev socket,id=agent,path=${AGENT_SOCKET},server=on,wait=off`]
  const files = disksOf(spec).map(
    (_, i) => `-blockdev driver=qcow2,node-name=d${i},discard=unmap,file.driver=file,file.filename=${diskFile(i)}`
  )
  const line = [
    '"${QEMU:-qemu-system-x86_64}"',
    `-name ${quoted(`guest=${spec.id}`)}`,
    ...nets,
    ...files,
    ...agent,
    ...devices,
    '-serial "${SERIAL:-mon:stdio}"',
    `-incoming ${quoted(`exec:cat ${RAM_FILE}`)}`,
    '"$@"'
  ]
  return `#!/bin/sh
# ${title.replaceAll(/[^ -~]/g, '?')}
# Its serial console is this terminal, or what SERIAL says (SERIAL=file:console ./run.sh).
cd "$(dirname "$0")" || exit 1
${nextBoot(spec)}exec ${line.join(' \\\n  ')}
`
}

/** Lines of the script for the files that the VM boots from, where they are here. */
function nextBoot({ kernel, initrd, append = '' }: VmSpec): string {
  if (kernel === undefined) return ''
  const named = { KERNEL: kernel, ...(initrd !== undefined && { INITRD: initrd }) }
  const variables = Object.entries(named).map(([name, path]) => `${name}=${quoted(path)}\n`)
  const readable = Object.keys(named).map(name => `[ -r "$${name}" ]`)
  const files = Object.keys(named).map(name => `-${name.toLowerCase()} "$${name}"`)
  return `# The VM has them in its RAM: they are for its next boot.
${variables.join('')}if ${readable.join(' && ')}; then
  set -- ${files.join(' ')} -append ${quoted(append)} "$@"
fi
`
}

/** A device's argument with the node of a disk's file in the place of the driver's. */
const onDisk = (argument: string, nodes: ReadonlyMap<string, string>): string =>
  argument.replace(/(?<=,drive=)[^,]+/, node => nodes.get(node) ?? node)

/** Flags with their values, without ours. */
function kept(argv: readonly string[]): string[][] {
  const all: string[][] = []
  for (let i = 0; i < argv.length; i++) {
    const flag = argv[i] ?? ''
    const words = WITHOUT_VALUE.has(flag) ? [flag] : [flag, argv[++i] ?? '']
    if (!OURS.has(flag)) all.push(words)
  }
  return all
}

/** As one word of a POSIX shell. */
const quoted = (text: string): string => (/^[\w./:=,@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`)
