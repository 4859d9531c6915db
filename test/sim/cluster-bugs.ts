/**
 * Mistakes of the whole system, planted in the wiring between production parts (never in them): a simulation that does not
 * catch them is blind. `HONEST` plants none.
 */
import type { StartedGenerations } from '../../node/agents/group-agent.ts'
import type { HousekeepingDeps } from '../../node/agents/housekeeping.ts'
import type { MachineClocks } from '../../node/host/sleep-clock.ts'
import type { MembershipFacts } from '../../node/planning/membership.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { ControlBus, ImageManifest, ImageWorker, NicPort, Transport } from '../../node/ports.ts'
import type { PeerId } from '../../protocols/core.ts'
import { parseSwimMessage, PROTOCOL as SWIM, type SwimMessage } from '../../protocols/failure-detector/messages.ts'
import { BatchWriter, decodeBatch } from '../../protocols/frames/records.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import type { LeaseGuard } from '../../protocols/register/acceptor.ts'
import { SimWorker } from './world-images.ts'
import { SHAPE, type SimShards } from './world-shards.ts'

export interface ClusterWiring {
  /** As the peers of a host read them. */
  clocks(clocks: MachineClocks): MachineClocks
  guard(guard: LeaseGuard): LeaseGuard
  bus(bus: ControlBus): ControlBus
  nic(nic: NicPort): NicPort
  /** As the switch is told. */
  record(record: GroupRecord): GroupRecord
  /** Whether a machine that is cut is to stay as it was cut. */
  stays(stays: boolean): boolean
  /** What the switch speaks over. `generationOf`: of a group as this peer knows it. */
  frames(transport: Transport, generationOf: (group: string) => number | undefined): Transport
  /** Whether frames may leave under the lease that is left. */
  maySpeak(remainingMs: number): boolean
  shards(shards: SimShards): SimShards
  started(started: StartedGenerations): StartedGenerations
  worker(worker: ImageWorker): ImageWorker
  /** What a peer plans changes of members by. */
  facts(facts: MembershipFacts): MembershipFacts
  /** As read by who makes a group that has no record. */
  groupFloor(cluster: ClusterRecord): number
  /** As retention reads it. */
  manifest(manifest: ImageManifest): ImageManifest
  retained(directory: HousekeepingDeps['directory']): HousekeepingDeps['directory']
}

export const HONEST: ClusterWiring = {
  clocks: clocks => clocks,
  guard: guard => guard,
  bus: bus => bus,
  nic: nic => nic,
  record: record => record,
  stays: stays => stays,
  frames: transport => transport,
  maySpeak: remainingMs => remainingMs > 0,
  shards: shards => shards,
  started: started => started,
  worker: worker => worker,
  facts: facts => facts,
  groupFloor: cluster => cluster.groupFloor,
  manifest: manifest => manifest,
  retained: directory => directory
}

/** One more than an image may lack. */
const CACHED_COLUMNS = SHAPE.m + 1

export interface ClusterBug {
  readonly wiring: Partial<ClusterWiring>
  /** The violations that it may show by. */
  readonly symptom: RegExp
}

export const CLUSTER_BUGS: Readonly<Record<string, ClusterBug>> = {
  'frames are not checked for generation': {
    symptom: /generationsDoNotMix|imagesAreOneCut|nobodyIsDeaf/,
    wiring: {
      frames: (transport, generationOf) => ({
        ...boundTransport(transport),
        handle: (channel, handler) =>
          transport.handle(channel, (from, message) => {
            const { group, generation, records } = decodeBatch(message)
            const writer = new BatchWriter(group, generationOf(group) ?? generation)
            for (const record of records) writer.add(record)
            return handler(from, writer.take().message)
          })
      })
    }
  },
  'the colour is turned before the drain': {
    symptom: /imagesAreOneCut/,
    wiring: { nic: nic => ({ ...boundNic(nic), drained: async () => {} }) }
  },
  'in-flight frames are not recorded': {
    symptom: /imagesAreOneCut/,
    wiring: {
      nic: nic => ({
        ...boundNic(nic),
        recorded: async epoch => {
          await nic.recorded(epoch)
          return { frames: 0, bytes: 0, pieces: nothing }
        }
      })
    }
  },
  'a VM does not take the colour of an epoch that came to nothing': {
    symptom: /nobodyIsDeaf/,
    wiring: { nic: nic => ({ ...boundNic(nic), abandon: async () => {} }) }
  },
  'a takeover does not wait for the lease': {
    symptom: /leasesDoNotOverlap|ownersSpeakInTurn/,
    wiring: {
      guard: guard => ({
        open: nowMs => guard.open(nowMs),
        remember: longestMs => guard.remember(longestMs),
        adopted: version => guard.adopted(version),
        accepted: (key, generation) => guard.accepted(key, generation),
        blockedForMs: () => 0
      })
    }
  },
  'the clock stands still while the machine sleeps': {
    symptom: /leasesDoNotOverlap|ownersSpeakInTurn/,
    wiring: { clocks: clocks => ({ ...clocks, ahead: () => ({ leastMs: 0, mostMs: 0 }) }) }
  },
  'an epoch that came to nothing lets out what waited for it': {
    symptom: /nothingHeardIsTakenBack/,
    wiring: {
      record: record => {
        const { open, lastEpoch: epoch, generation } = record
        if (open !== null || epoch === 0) return record
        return { ...record, committed: { previousEpoch: 0, images: {}, ...record.committed, epoch, generation } }
      }
    }
  },
  'a VM goes on without asking its lease after a stop': {
    symptom: /ownersSpeakInTurn|nothingHeardIsTakenBack/,
    wiring: { maySpeak: () => true }
  },
  'shards count as durable before they are on disk': {
    symptom: /commitsAreDurable|committedEpochsAreWhole/,
    wiring: {
      shards: shards => {
        // A write-back cache: what is newer pushes out what is older.
        const cache: (() => Promise<void>)[] = []
        return {
          ...shards,
          putColumn: async (manifest, grid, column, bytes) => {
            cache.push(() => shards.putColumn(manifest, grid, column, bytes))
            if (cache.length > CACHED_COLUMNS)
              cache
                .shift()?.()
                .catch(() => {})
          }
        }
      }
    }
  },
  'a column that nobody has stored counts as durable, besides those that may be late': {
    symptom: /commitsAreDurable/,
    wiring: {
      shards: shards => ({
        ...shards,
        putColumn: async (to, grid, column, bytes) => {
          if (column > 0) await shards.putColumn(to, grid, column, bytes)
        }
      })
    }
  },
  'a restored VM does not get its in-flight frames': {
    symptom: /imagesAreOneCut/,
    wiring: {
      nic: nic => ({
        ...boundNic(nic),
        inject: async pieces => {
          for await (const _ of pieces) continue
        }
      })
    }
  },
  'images lean on streams that a neighbour had before its last epoch': {
    symptom: /committedEpochsAreWhole|keptEpochsAreWhole|neededDataIsKept/,
    wiring: {
      worker: worker => {
        if (worker instanceof SimWorker) worker.neighbour.careless = true
        return worker
      }
    }
  },
  'retention forgets the older streams of an image': {
    symptom: /neededDataIsKept/,
    wiring: { manifest: manifest => ({ ...manifest, streams: manifest.streams.slice(-1) }) }
  },
  'retention forgets epochs that are kept beside the committed one': {
    symptom: /neededDataIsKept|keptEpochsAreWhole/,
    wiring: {
      retained: directory => ({
        all: () => directory.all().map(record => ({ ...record, kept: undefined })),
        get: id => directory.get(id),
        refresh: id => directory.refresh(id),
        change: (id, next) => directory.change(id, next),
        get surveyed() {
          return directory.surveyed
        },
        onRecord: handler => directory.onRecord(handler),
        onForgotten: handler => directory.onForgotten(handler)
      })
    }
  },
  'a restarted peer starts its VMs again in the same generation': {
    symptom: /imagesAreOneCut|nobodyIsDeaf/,
    wiring: { started: started => ({ of: () => 0, note: (group, generation) => started.note(group, generation) }) }
  },
  'a leaving member is removed although it is needed': {
    symptom: /removalsTakeNothing/,
    wiring: { facts: facts => ({ ...facts, owners: new Set(), needed: new Set() }) }
  },
  'a forgotten group counts from the beginning when it is made again': {
    symptom: /epochsAreNotForgotten/,
    wiring: { groupFloor: () => 0 }
  },
  'a member does not refute that it is dead': {
    symptom: /nobodyIsTakenForDead/,
    wiring: {
      bus: bus => ({
        self: bus.self,
        send: (to, protocol, message) => bus.send(to, protocol, message),
        on: (protocol, parse, handler) =>
          bus.on(protocol, message => parse(protocol === SWIM ? deafTo(bus.self, message) : message), handler)
      })
    }
  },
  'a VM goes on after the cut at which its group is to rest': {
    symptom: /restingGroupsStandStill/,
    wiring: { stays: () => false }
  },
  'a void image is the base of the next one': {
    symptom: /imagesLeanOnCommittedEpochs|imagesAreOneCut|neededDataIsKept|committedEpochsAreWhole/,
    wiring: {
      worker: worker => ({
        capture: options => worker.capture(options),
        commit: epoch => worker.commit(epoch),
        abort: epoch => {
          worker.commit(epoch)
          worker.abort(epoch)
        },
        restore: manifest => worker.restore(manifest),
        close: () => worker.close()
      })
    }
  }
}

/** The message without claims that `self` is dead. */
function deafTo(self: PeerId, raw: unknown): SwimMessage {
  const message = parseSwimMessage(raw)
  return { ...message, updates: message.updates.filter(({ peer, state }) => peer !== self || state !== 'dead') }
}

async function* nothing(): AsyncGenerator<Uint8Array> {}

export const boundNic = (nic: NicPort): NicPort => ({
  ends: nic.ends,
  prepare: () => nic.prepare(),
  hold: () => nic.hold(),
  release: () => nic.release(),
  drained: () => nic.drained(),
  turn: epoch => nic.turn(epoch),
  talks: () => nic.talks(),
  expect: (epoch, vm, sent) => nic.expect(epoch, vm, sent),
  recorded: epoch => nic.recorded(epoch),
  abandon: epoch => nic.abandon(epoch),
  inject: pieces => nic.inject(pieces),
  detach: () => nic.detach()
})

const boundTransport = (transport: Transport): Transport => ({
  self: transport.self,
  connected: peer => transport.connected(peer),
  send: (to, channel, parts, leaves) => transport.send(to, channel, parts, leaves),
  write: (to, channel, parts) => transport.write(to, channel, parts),
  handle: (channel, handler) => transport.handle(channel, handler),
  onConnection: handler => transport.onConnection(handler),
  start: () => transport.start(),
  stop: () => transport.stop()
})
