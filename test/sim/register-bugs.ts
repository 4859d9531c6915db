/**
 * Classic mistakes, planted in the wiring between production parts (never in them), so that a simulation that does not
 * catch them is known to be blind. `HONEST` plants none.
 */
import type { LeaseSettings } from '../../config/schema.ts'
import type { ControlBus, RegisterStore } from '../../node/ports.ts'
import type { LeaseVoter } from '../../protocols/lease/voter.ts'
import type { LeaseGuard } from '../../protocols/register/acceptor.ts'
import type { AcceptorRecord } from '../../protocols/register/record.ts'
import type { RegisterShell } from '../../protocols/register/shell.ts'
import { decodeValue } from '../../protocols/register/value.ts'

export interface Wiring {
  voter(make: (settings: LeaseSettings) => LeaseVoter, settings: LeaseSettings): LeaseVoter
  guard(voter: LeaseVoter): LeaseGuard
  store(store: RegisterStore): RegisterStore
  bus(bus: ControlBus): ControlBus
  registers(registers: RegisterShell, local: (key: string) => AcceptorRecord | undefined): RegisterShell
}

export const HONEST: Wiring = {
  voter: (make, settings) => make(settings),
  guard: voter => voter,
  store: store => store,
  bus: bus => bus,
  registers: registers => registers
}

function guardOf(voter: LeaseVoter, change: Partial<LeaseGuard>): LeaseGuard {
  return {
    open: nowMs => voter.open(nowMs),
    accepted: (key, generation) => voter.accepted(key, generation),
    blockedForMs: (key, fence, nowMs) => voter.blockedForMs(key, fence, nowMs),
    ...change
  }
}

export const BUGS: Readonly<Record<string, Wiring>> = {
  'acceptor answers before fsync': {
    ...HONEST,
    store: store => ({
      ...store,
      persist: async entries => {
        void store.persist(entries)
      }
    })
  },
  'ballots are reused after a restart': {
    ...HONEST,
    store: store => ({ ...store, load: async () => (await store.load()).filter(([name]) => name !== 'ballots') })
  },
  'voters grant without the drift bound': {
    ...HONEST,
    voter: (make, settings) => make({ ...settings, driftPerMille: 0 })
  },
  'voters grant an old generation after they accepted a newer one': {
    ...HONEST,
    guard: voter => guardOf(voter, { accepted: () => {} })
  },
  'voters forget their grants in a restart and do not wait': {
    ...HONEST,
    guard: voter => guardOf(voter, { open: nowMs => voter.open(nowMs - 1e9) })
  },
  'fences are not carried with unfinished changes': {
    ...HONEST,
    bus: bus => ({
      self: bus.self,
      on: (protocol, parse, handler) => bus.on(protocol, parse, handler),
      send: (to, protocol, message) => bus.send(to, protocol, withoutFence(message))
    })
  },
  'reads are answered from the local disk': {
    ...HONEST,
    registers: (registers, local) => ({
      ...bound(registers),
      read: async key => {
        const accepted = local(key)?.accepted
        return accepted ? decodeValue(accepted.value) : registers.read(key)
      }
    })
  }
}

function bound(registers: RegisterShell): RegisterShell {
  return {
    read: key => registers.read(key),
    generationOf: key => registers.generationOf(key),
    change: (key, next, options) => registers.change(key, next, options),
    localKeys: () => registers.localKeys(),
    start: () => registers.start(),
    stop: () => registers.stop()
  }
}

function withoutFence(message: object): object {
  if (!('kind' in message && message.kind === 'promised' && 'accepted' in message && message.accepted)) return message
  return { ...message, accepted: { ...message.accepted, fence: [] } }
}
