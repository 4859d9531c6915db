/** From what another program says of a VM, and its disks' files, to the definition of a group with it. Pure. */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { definitionSchema } from '../../../config/definition.ts'
import { MAX_CPUS, MAX_DISK_MIB, MAX_DISKS, MAX_MEMORY_MIB, MAX_NICS, MIN_MEMORY_MIB } from '../../../config/vm.ts'
import { check } from '../../../config/words.ts'
import { UsageError } from '../../errors.ts'
import { type Draft, type Finding, type FoundDisk, type FoundNic, short } from './findings.ts'

/** What is at a disk's path on this host. */
export type DiskFacts =
  | { readonly kind: 'absent' }
  | { readonly kind: 'unfit'; readonly why: string }
  | { readonly kind: 'file'; readonly bytes: number; readonly qcow2?: Qcow2Facts | undefined }

/** What its header says. */
export interface Qcow2Facts {
  readonly bytes: number
  /** Why nobody can begin with it as it is. */
  readonly cannot?: string | undefined
  /** Snapshots in it. */
  readonly snapshots: number
}

export interface AdoptWish {
  /** Absent: the VM's own name. */
  readonly group?: string | undefined
  /** Of a VM that the file gives none. */
  readonly fallbackName: string
  /** What NICs are plugged into there → network here. Others: the first way outside is "uplink", the rest keep their names. */
  readonly networks: ReadonlyMap<string, string>
}

export interface Adopted {
  /** As people write it; undefined where something is refused. */
  readonly definition: z.input<typeof definitionSchema> | undefined
  readonly refused: readonly Finding[]
  readonly changed: readonly Finding[]
  readonly left: readonly Finding[]
}

/** With other files in the place of its disks, by name, whatever it says of them. UsageError ADOPT_OPTION. */
export function withFiles(draft: Draft, files: ReadonlyMap<string, string>): Draft {
  const names = draft.disks.map(({ name }) => name)
  for (const name of files.keys()) requireNamed('--disk', name, names)
  const disks = draft.disks.map(disk => {
    const path = files.get(disk.name)
    return path === undefined ? disk : { name: disk.name, path, any: true }
  })
  return { ...draft, disks }
}

/** `facts`: by the paths of `draft`'s disks. UsageError ADOPT_OPTION where `wish` names a network that there is not. */
export function adopt(draft: Draft, facts: ReadonlyMap<string, DiskFacts>, wish: AdoptWish): Adopted {
  const { findings, kernel, initrd, append, memoryMiB, cpus } = draft
  const plugs = draft.nics.map(({ on }) => on)
  for (const name of wish.networks.keys()) requireNamed('--network', name, plugs)
  const id = nameOf(draft, wish)
  const disks = draft.disks.flatMap(disk => diskOf(disk, facts, draft))
  if (draft.disks.length === 0 && kernel === undefined) {
    findings.refuse('no disk', 'there is nothing to boot from: neither a disk nor a kernel')
  }
  requireWithin(draft, disks)
  const vm = {
    id,
    nics: nicsOf(draft, id, wish.networks),
    memoryMiB,
    ...(cpus !== 1 && { cpus }),
    ...(disks.length > 0 && { disks: disks.map(({ sizeMiB, base }) => ({ sizeMiB, base })) }),
    ...(draft.generationId && { generationId: true }),
    ...(draft.guestAgent && { guestAgent: {} }),
    ...(kernel !== undefined && { kernel, ...(initrd !== undefined && { initrd }), append: append ?? '' })
  }
  const definition = { id: wish.group ?? id, vms: [vm] }
  const { refused, changed, left } = findings
  if (refused.length === 0) {
    const checked = check(definitionSchema, definition)
    if (!checked.ok) for (const { key, expected } of checked.problems) findings.refuse(key, `it must be ${expected}`)
  }
  return { definition: refused.length === 0 ? definition : undefined, refused, changed, left }
}

/** What VMs here have at the most, in the words of whoever asks. */
function requireWithin(
  { findings, memoryMiB, cpus, disks: found, nics }: Draft,
  disks: readonly { readonly sizeMiB: number; readonly name: string }[]
): void {
  if (Number.isNaN(memoryMiB)) findings.refuse('memory', 'how much it is, is not said in a way that is understood')
  else if (memoryMiB < MIN_MEMORY_MIB || memoryMiB > MAX_MEMORY_MIB) {
    findings.refuse(`memory: ${memoryMiB} MiB`, `a VM here has ${MIN_MEMORY_MIB} to ${MAX_MEMORY_MIB} MiB`)
  }
  if (Number.isNaN(cpus)) findings.refuse('processors', 'how many there are, is not said in a way that is understood')
  else if (cpus < 1 || cpus > MAX_CPUS) {
    findings.refuse(`${cpus} processors`, `a VM here has 1 to ${MAX_CPUS}: give it fewer there first`)
  }
  if (nics.length > MAX_NICS) findings.refuse(`${nics.length} NICs`, `a VM here has ${MAX_NICS} at the most`)
  if (found.length > MAX_DISKS) {
    findings.refuse(`${found.length} disks`, `a VM here has ${MAX_DISKS} at the most: put what some hold on others`)
  }
  for (const { name, sizeMiB } of disks) {
    if (sizeMiB <= MAX_DISK_MIB) continue
    const says = `a disk here has ${MAX_DISK_MIB / 2 ** 20} TiB at the most: shrink its file system and the disk (qemu-img resize --shrink), or spread it over several`
    findings.refuse(`disk ${name}: ${(sizeMiB / 2 ** 20).toFixed(1)} TiB`, says)
  }
}

function requireNamed(option: string, name: string, there: readonly string[]): void {
  if (there.includes(name)) return
  const known = there.length === 0 ? 'the VM has none' : `there are ${there.map(short).join(', ')}`
  throw new UsageError('ADOPT_OPTION', `${option} ${short(name)}: the VM has no such thing; ${known}`)
}

/** What VMs may be called is less than elsewhere. */
function nameOf({ name, findings }: Draft, { fallbackName }: AdoptWish): string {
  const wanted = name === '' ? fallbackName : name
  const id = wanted
    .replaceAll(/[^a-zA-Z0-9_.-]+/g, '-')
    .replace(/^[^a-zA-Z0-9]+/, '')
    .slice(0, 63)
  if (id !== name && id !== '') findings.change(`name ${wanted}`, `VMs here have names of letters, digits, _, . and -`)
  return id === '' ? 'vm' : id
}

const MIB = 2 ** 20

function diskOf(
  { name, path, where = path, ...disk }: FoundDisk,
  facts: ReadonlyMap<string, DiskFacts>,
  { findings }: Draft
) {
  const said = `disk ${name}${where === undefined ? '' : `: ${where}`}`
  if (disk.cannot !== undefined || path === undefined) {
    findings.refuse(said, disk.cannot ?? 'no file is named')
    return []
  }
  const there = facts.get(path) ?? { kind: 'absent' }
  if (there.kind === 'absent') {
    const { format, sizeMiB } = disk
    if (format !== undefined && sizeMiB !== undefined) {
      findings.change(
        said,
        'it is not on this host and was not looked at: every host that may run the VM must have it there'
      )
      return [{ name, sizeMiB, base: { path, format } }]
    }
    findings.refuse(
      said,
      'it is not on this host, so its size is not known: adopt the VM where it is, or name a copy with --disk NAME=FILE'
    )
    return []
  }
  if (there.kind === 'unfit') {
    findings.refuse(said, there.why)
    return []
  }
  // A disk whose format nobody names is raw: what a guest wrote at its begin is no header.
  const format = disk.format ?? (disk.any && there.qcow2 ? 'qcow2' : 'raw')
  const { qcow2 } = there
  if (format === 'raw') return [{ name, sizeMiB: Math.ceil(there.bytes / MIB), base: { path, format } }]
  const cannot = qcow2 === undefined ? 'it is said to be qcow2 and is not' : qcow2.cannot
  if (qcow2 === undefined || cannot !== undefined) {
    findings.refuse(said, cannot ?? '')
    return []
  }
  if (qcow2.snapshots > 0)
    findings.leave(`${qcow2.snapshots} snapshots in disk ${name}`, 'the VM begins with what the disk holds now')
  return [{ name, sizeMiB: Math.ceil(qcow2.bytes / MIB), base: { path, format } }]
}

const MAC = /^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/

function nicsOf(draft: Draft, vm: string, networks: ReadonlyMap<string, string>) {
  const { findings } = draft
  const made = (index: number) => madeMac(`${vm} ${index}`)
  if (draft.nics.length === 0) {
    findings.change('no NIC', 'VMs here have one at least: this one is on a network "alone" of its own')
    return [{ mac: made(0), network: 'alone' }]
  }
  const taken = new Set<string>()
  return draft.nics.map((nic, index) => {
    const mac = nic.mac?.toLowerCase() ?? ''
    const fits = MAC.test(mac)
    if (!fits) findings.change(`${nic.name}${mac === '' ? '' : `, ${mac}`}`, 'it gets a MAC address of its own')
    const network = networkOf(nic, taken, networks)
    taken.add(network)
    findings.change(
      `${nic.name} on ${nic.on}`,
      `it is on network "${network}" here (--network NAME=NETWORK chooses another)`
    )
    return { mac: fits ? mac : made(index), network }
  })
}

/** Of a VM no two NICs are on one network. */
function networkOf(
  { on, outside }: FoundNic,
  taken: ReadonlySet<string>,
  networks: ReadonlyMap<string, string>
): string {
  const chosen = networks.get(on)
  if (chosen !== undefined && !taken.has(chosen)) return chosen
  if (chosen === undefined && outside && !taken.has('uplink')) return 'uplink'
  const name =
    (chosen ?? on)
      .toLowerCase()
      .replaceAll(/[^a-z0-9-]+/g, '-')
      .replace(/^-+/, '')
      .slice(0, 36) || 'network'
  const base = name === 'uplink' ? 'uplink-2' : name
  for (let number = 2, free = base; ; free = `${base}-${number++}`) if (!taken.has(free)) return free
}

/** The same for the same VM, whoever adopts it; in QEMU's own range. */
function madeMac(of: string): string {
  const [a = 0, b = 0, c = 0] = createHash('sha256').update(of).digest()
  return ['52', '54', '00', ...[a, b, c].map(byte => byte.toString(16).padStart(2, '0'))].join(':')
}
