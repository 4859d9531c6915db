/** The part of the composition root that shows consoles of VMs, its own and others'. */
import type { PeerId } from '../../protocols/core.ts'
import { MAX_READ_BYTES } from '../../protocols/console/messages.ts'
import { ConsoleExchange } from '../../protocols/console/shell.ts'
import { memberById } from '../../protocols/membership/record.ts'
import type { Groups } from '../agents/groups.ts'
import { ConsoleLogs } from '../host/console-log.ts'
import { ConsoleOperations } from '../operations/consoles.ts'
import type { Home } from './home.ts'
import type { Voice } from './voice.ts'

export function openConsoles({ runDir, clock, self }: Home, voice: Voice, groups: Groups): ConsoleOperations {
  const { bus, directory, membership } = voice
  const logs = new ConsoleLogs(runDir, clock, MAX_READ_BYTES)
  const own = {
    read: (question: Parameters<ConsoleLogs['read']>[0]) => logs.read(question),
    type: (group: string, vm: string, text: string) => groups.type(group, vm, text)
  }
  const exchange = new ConsoleExchange({
    bus,
    clock,
    read: own.read,
    type: ({ group, vm, text }) => own.type(group, vm, text)
  })
  const nameOf = (peer: PeerId): string => memberById(membership.record(), peer)?.name ?? peer
  return new ConsoleOperations({ self, directory, clock, exchange, own, nameOf })
}
