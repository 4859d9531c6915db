/**
 * What editors know of a definition: its JSON Schema (draft 7, which the YAML language server completes from), made of the schema
 * by which definitions are checked, with words for people. `definition.schema.json` is what it gives; a test keeps it so.
 */
import { z } from 'zod'
import { definitionSchema } from './definition.ts'

type Node = z.core.JSONSchema.BaseSchema

/** By which it is known wherever its file lies. A name and no address: nobody keeps it on the web. */
const SCHEMA_ID = 'urn:diapause:definition'

/** `[]`: of each entry. In the schema itself a description is what an error says was expected, which is less. */
const words: Readonly<Record<string, string>> = {
  '': 'A group of VMs that are cut, restored and, when their host dies, moved together.',
  id: 'The name of the group. It cannot be changed.',
  vms: 'The VMs of the group: what talks to each other belongs into one.',
  owners: 'Where VMs run at first, by the names of members. A VM that is not named goes where there is room.',
  outputCommit:
    'What VMs say to the outside (networks "uplink" and "shared/…") waits until an epoch that contains it is committed. Every answer then waits for the next epoch: set [epochs] intervalMs = 500 or so in the files of the peers.',
  openFlow:
    "Frames on networks of the group's own pass Open vSwitch bridges and not the peers: only hosts with [switch.openFlow] can run these VMs.",
  retention:
    'Which epochs are kept, and can be gone back to. Absent: as [epochs.retention] in the files of the peers says.',
  'retention.keepLast': 'The newest epochs, the last one included.',
  'retention.hourly': 'The last epoch of each of so many hours in which there was one.',
  'retention.daily': 'The last epoch of each of so many days (UTC) in which there was one.',
  'retention.weekly': 'The last epoch of each of so many weeks (UTC, from Monday) in which there was one.',
  policy: 'When epochs are taken by themselves. Absent: as [epochs] in the files of the peers says.',
  'policy.kind':
    'interval: every so often. delta-size: when so much has changed. adaptive: by what epochs cost and what may be lost. windows: other intervals at other times. own: a module under [policies] in the files of the peers.',
  'policy.everyMs': 'From the start of one epoch to that of the next, in milliseconds.',
  'policy.mebibytes': 'An epoch is due when so much has changed, all VMs together, at the pace of the last epochs.',
  'policy.overheadPercent': 'The VMs lose at most so much of their time to epochs. Default: 5.',
  'policy.lossMs':
    'At most so much is lost with a host, in milliseconds; where both cannot be kept, the overhead is. Default: 30000.',
  'policy.atLeastMs': 'The shortest interval, in milliseconds. Default: 1000.',
  'policy.atMostMs': 'The longest interval, in milliseconds. Default: 600000.',
  'policy.windows': 'Times at which another interval holds; of several the first that has the minute.',
  'policy.windows[]': 'A window.',
  'policy.windows[].cron': 'The minutes of the window: minute, hour, day of month, month, day of week.',
  'policy.windows[].everyMs': 'The interval within the window, in milliseconds. 0: no epochs.',
  'policy.otherwiseMs': 'The interval at all other times, in milliseconds. Default: 0, no epochs.',
  'policy.timeZone': 'The time zone of the windows, such as Europe/Athens. Default: UTC.',
  'policy.name': 'The name of the module under [policies] in the file of each peer that may run the first VM.',
  'policy.settings': 'Given to the module: texts, numbers, true and false.',
  'vms[]': 'A VM. It has either `mac` (one NIC on network "default") or `nics`.',
  'vms[].id': 'The name of the VM, within the group.',
  'vms[].mac': 'The MAC address of one NIC on network "default", which is of the group\'s own. Instead of `nics`.',
  'vms[].nics': 'One NIC on each network, in the order in which the guest sees them.',
  'vms[].nics[]': 'A NIC (virtio-net).',
  'vms[].nics[].mac': 'A unicast MAC address that no other NIC of the group has, lower case with colons.',
  'vms[].nics[].network':
    'Any name: a network of the group\'s own, which is cut and restored with it. "shared/NAME": of the whole cluster. "uplink": the outside, as [switch] uplink of the VM\'s host says.',
  'vms[].memoryMiB': 'RAM, in MiB.',
  'vms[].cpus': 'Virtual processors. Default: 1.',
  'vms[].disks': 'In the order in which the guest sees them: /dev/vda, /dev/vdb, …',
  'vms[].disks[]': 'A disk (virtio-blk).',
  'vms[].disks[].sizeMiB': 'In MiB, and at least the size of the base.',
  'vms[].disks[].base': 'What the disk holds at first; it is never written. Absent: zeros.',
  'vms[].disks[].base.path': 'A file that is the same on every host that may run the VM.',
  'vms[].disks[].base.format': 'What kind of file it is.',
  'vms[].capture':
    'The only way in which it may be cut: "dirty" copies written pages (see `diapause doctor`), "portable" streams all its RAM. Default: the best that its host can do.',
  'vms[].standby':
    '1: its last committed RAM is kept ready on the host that would take it over, and on its own, so that a restore takes milliseconds; costs that memory on both. Default: 0.',
  'vms[].apart': 'VMs with the same name here run on different hosts, and racks, where that can be.',
  'vms[].generationId':
    'Whether a device tells the guest that it went back to a snapshot, so that it draws new random numbers. Default: true.',
  'vms[].clock':
    'Whether its wall clock is set after a restore ("wall", which needs an agent in the guest), or goes on as if no time had passed ("continue"). Default: "wall".',
  'vms[].guestAgent': 'A channel for qemu-guest-agent in the guest; {} to have the clock set. Default: none.',
  'vms[].guestAgent.afterRestore':
    'A program in the guest and its arguments, run after each restore; nothing waits for it.',
  'vms[].guestAgent.timeoutMs':
    'How long the agent is waited for, and then that program, in milliseconds. Default: 30000.',
  'vms[].objective': 'What the death of its host may cost. An alarm is raised as soon as it would cost more.',
  'vms[].objective.backMs': 'It runs again at most so long after its host died, in milliseconds (RTO).',
  'vms[].objective.lossMs': 'At most so much is lost, in milliseconds (RPO).',
  'vms[].kernel':
    'The path of a Linux kernel on every host that may run the VM, or content:SHA256. Absent: it boots from its first disk.',
  'vms[].initrd': 'The path of its initramfs on every host that may run the VM, or content:SHA256.',
  'vms[].append': "The kernel's command line. With console=ttyS0 its console is that of `diapause vm console`."
}

/** The schema as a JSON value. Throws where a key of a definition has no words. */
export function definitionJsonSchema(): Node {
  const schema: Node = z.toJSONSchema(definitionSchema, { io: 'input', target: 'draft-7' })
  const vm = childrenOf(schema, '').find(([path]) => path === 'vms')?.[1].items
  if (typeof vm === 'object' && !Array.isArray(vm)) asChecked(vm)
  return { $id: SCHEMA_ID, title: 'A group of VMs of diapause', ...describe(schema, '') }
}

/** What the schema of a VM checks by functions, of which no JSON Schema can be made. */
function asChecked(vm: Node): void {
  vm.oneOf = [{ required: ['mac'] }, { required: ['nics'] }]
  const bootable: Node = { items: [{ type: 'object', required: ['base'] }] } // an empty disk boots nothing
  vm.anyOf = [{ required: ['kernel'] }, { required: ['disks'], properties: { disks: bootable } }]
  vm.dependencies = { initrd: ['kernel'], append: ['kernel'] }
  const { objective, guestAgent } = Object.fromEntries(childrenOf(vm, ''))
  if (objective !== undefined) objective.minProperties = 1
  const afterRestore = guestAgent && childrenOf(guestAgent, '').find(([name]) => name === 'afterRestore')?.[1]
  if (afterRestore === undefined || typeof afterRestore.items !== 'object' || Array.isArray(afterRestore.items)) return
  const word = afterRestore.items
  afterRestore.items = [{ ...word, pattern: '^/[^\\0]*$' }]
  afterRestore.additionalItems = word
  afterRestore.minItems = 1
}

/** As it is published. */
export const definitionSchemaText = (): string => `${JSON.stringify(definitionJsonSchema(), null, 2)}\n`

function describe(schema: Node, path: string): Node {
  const branches = (schema.oneOf ?? []).filter(branch => typeof branch === 'object')
  for (const each of [schema, ...branches]) for (const [at, child] of childrenOf(each, path)) describe(child, at)
  const { items } = schema
  if (typeof items === 'object' && !Array.isArray(items) && items.properties !== undefined) describe(items, `${path}[]`)
  const description = words[path]
  if (description === undefined) throw new Error(`a definition has ${path}: give it words in definition-schema.ts`)
  schema.description = description
  return schema
}

const childrenOf = ({ properties = {} }: Node, path: string): [string, Node][] =>
  Object.entries(properties).flatMap(([name, child]) =>
    typeof child === 'object' ? [[`${path}${path && '.'}${name}`, child]] : []
  )
