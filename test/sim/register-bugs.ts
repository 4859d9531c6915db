/**
 * Classic mistakes, planted in the wiring between production parts (never in them), so that a simulation that does not
 * catch them is known to be blind. `HONEST` plants none.
 */
import type { LeaseSettings } from '../../config/schema.ts'
import type { ControlBus, RegisterStore } from '../../node/ports.ts'
import type { LeaseVoter } from '../../protocols/lease/voter.ts'
import type { LeaseGuard } from '../../protocols/register/acceptor.ts'
import type { ProposerMessage } from '../../protocols/register/messages.ts'
import type { AcceptorRecord } from '../../protocols/register/record.ts'
import type { RegisterShell } from '../../protocols/register/shell.ts'
import { isTombstone, valueOf } from '../../protocols/register/value.ts'

export interface Wiring {
  voter(make: (settings: LeaseSettings) => LeaseVoter, settings: LeaseSettings): LeaseVoter
  guard(voter: LeaseVoter): LeaseGuard
  store(store: RegisterStore): RegisterStore
  bus(bus: ControlBus): ControlBus
  registers(registers: RegisterShell, local: (key: string) => AcceptorRecord | undefined): RegisterShell
}

/** What clients do most of: restarts of the only one that has work, takeovers, changes of voters, deletions. */
export type Focus = 'restarts' | 'owners' | 'voters' | 'deletions'

export interface Bug extends Wiring {
  /** The work in which it shows. */
  readonly focus?: Focus
  /** The invariants that it may violate. */
  readonly symptom: RegExp
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
    remember: longestMs => voter.remember(longestMs),
    adopted: version => voter.adopted(version),
    accepted: (key, generation) => voter.accepted(key, generation),
    blockedForMs: (key, fence, nowMs) => voter.blockedForMs(key, fence, nowMs),
    ...change
  }
}

export const BUGS: Readonly<Record<string, Bug>> = {
  'acceptor answers before fsync': {
    ...HONEST,
    symptom:
      /chosenValuesAreNotForgotten|acknowledgedChangesAreThere|registersAreLinearizable|ballotsCarryOneValue|generationsDoNotFall|deletedChangesStayDeleted|registersConverge|leasesDoNotOverlap/,
    store: store => ({
      ...store,
      persist: async entries => {
        store.persist(entries).catch(() => {})
      }
    })
  },
  'ballots are reused after a restart': {
    ...HONEST,
    focus: 'restarts',
    symptom: /ballotsCarryOneValue|chosenValuesAreNotForgotten|acknowledgedChangesAreThere|registersAreLinearizable/,
    store: store => ({ ...store, load: async () => (await store.load()).filter(([name]) => name !== 'ballots') })
  },
  'voters grant without the drift bound': {
    ...HONEST,
    focus: 'owners',
    symptom: /leasesDoNotOverlap/,
    voter: (make, settings) => make({ ...settings, driftPerMille: 0 })
  },
  'voters grant an old generation after they accepted a newer one': {
    ...HONEST,
    focus: 'owners',
    symptom: /leasesDoNotOverlap/,
    guard: voter =>
      guardOf(voter, { accepted: (key, generation) => voter.accepted(key, generation === null ? null : 0) })
  },
  'voters forget their grants in a restart and do not wait': {
    ...HONEST,
    focus: 'owners',
    symptom: /leasesDoNotOverlap/,
    guard: voter => guardOf(voter, { open: nowMs => voter.open(nowMs - 1e9) })
  },
  'fences are not carried with unfinished changes': {
    ...HONEST,
    symptom: /leasesDoNotOverlap/,
    bus: bus => ({
      ...listening(bus),
      send: (to, protocol, message) => bus.send(to, protocol, withoutFence(message))
    })
  },
  'reads are answered from the local disk': {
    ...HONEST,
    symptom: /registersAreLinearizable/,
    registers: (registers, local) => ({
      ...bound(registers),
      read: async key => {
        const accepted = local(key)?.accepted
        return accepted ? valueOf(accepted) : registers.read(key)
      }
    })
  },
  'two changes of voters at once (unsettled)': {
    ...HONEST,
    focus: 'voters',
    symptom:
      /chosenValuesAreNotForgotten|acknowledgedChangesAreThere|registersAreLinearizable|generationsDoNotFall|votersAreOneChain/,
    registers: registers => ({
      ...bound(registers),
      settle: async () => ({ version: registers.voters().version, keys: 0, refusedSinceMs: 0 })
    })
  },
  'a deleted key is forgotten before all voters have the tombstone': {
    ...HONEST,
    focus: 'deletions',
    symptom: /deletedChangesStayDeleted|generationsDoNotFall|registersAreLinearizable|registersConverge/,
    bus: bus => ({
      ...listening(bus),
      send: (to, protocol, message) => {
        const sent = bus.send(to, protocol, message)
        const forget = forgetting(message)
        return forget === undefined ? sent : bus.send(to, protocol, forget)
      }
    })
  }
}

function bound(registers: RegisterShell): RegisterShell {
  return {
    read: key => registers.read(key),
    generationOf: key => registers.generationOf(key),
    change: (key, next, options) => registers.change(key, next, options),
    delete: (key, options) => registers.delete(key, options),
    voters: () => registers.voters(),
    setVoters: set => registers.setVoters(set),
    settle: onProgress => registers.settle(onProgress),
    localKeys: () => registers.localKeys(),
    allKeys: () => registers.allKeys(),
    start: () => registers.start(),
    stop: () => registers.stop()
  }
}

function listening(bus: ControlBus): Pick<ControlBus, 'self' | 'on'> {
  return { self: bus.self, on: (protocol, parse, handler) => bus.on(protocol, parse, handler) }
}

/** What tells a voter to forget at once the tombstone that it is sent. */
function forgetting(message: object): ProposerMessage | undefined {
  if (!('kind' in message)) return undefined
  const { kind, version, key, accepted } = message as Extract<ProposerMessage, { kind: 'accept' }>
  return kind === 'accept' && isTombstone(accepted)
    ? { kind: 'forget', version, key, ballot: accepted.ballot }
    : undefined
}

function withoutFence(message: object): object {
  if (!('kind' in message && message.kind === 'promised' && 'accepted' in message && message.accepted)) return message
  return { ...message, accepted: { ...message.accepted, fence: [] } }
}
