/** A peer that is nothing but a switch and its transport, in a process of its own. Argument: JSON in argv[2]. */
import { createSwitch } from '../../node/switch/switch.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { type ChildOptions, childTransport } from '../contract/loopback.ts'
import { clock, quietLog as log } from '../contract/real-clock.ts'

export interface SwitchPeerOptions extends ChildOptions {
  readonly record: GroupRecord
  /** Its VM → where its NIC is to be. */
  readonly nics: Readonly<Record<string, string>>
}

const options = JSON.parse(process.argv[2] ?? '{}') as SwitchPeerOptions
const { record, nics, members } = options
const transport = await childTransport(options)
const network = createSwitch({ self: transport.self, transport, clock, log, mayAct: () => true })
network.setGroup(record)
for (const [vm, nicPath] of Object.entries(nics)) {
  const port = await network.attach({ group: record.id, vm, generation: record.generation, epoch: 0, nicPath })
  await port.release()
}
await transport.start()
const others = members.filter(({ id }) => id !== transport.self)
while (!others.every(({ id }) => transport.connected(id))) await new Promise(resolve => setTimeout(resolve, 10))
process.send?.('ready')
process.on('disconnect', () => process.exit(0))
