/** Classic mistakes about repair, planted between production parts, so that a simulation that does not catch them is known to be blind. */
import type { RedundancyDeps } from '../../node/agents/redundancy.ts'
import type { HoldingsDeps } from '../../node/agents/holdings.ts'
import type { ShardStore } from '../../node/ports.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { RIGHT } from './repairs-peer.ts'

export interface RepairWiring {
  /** Whether what was read is what the manifest says. */
  accepts(bytes: Uint8Array): boolean
  have(have: HoldingsDeps['have']): HoldingsDeps['have']
  lost(lost: RedundancyDeps['lost']): RedundancyDeps['lost']
  record(record: ClusterRecord): ClusterRecord
  store(store: ShardStore): ShardStore
}

export interface RepairBug extends RepairWiring {
  /** The invariants that it may violate. */
  readonly symptom: RegExp
}

export const HONEST: RepairWiring = {
  accepts: bytes => Buffer.compare(bytes, RIGHT) === 0,
  have: have => have,
  lost: lost => lost,
  record: record => record,
  store: store => store
}

export const REPAIR_BUGS: Readonly<Record<string, RepairBug>> = {
  'what a column is rebuilt from is not checked': {
    ...HONEST,
    symptom: /noColumnIsMadeWrong/,
    accepts: () => true
  },
  'a peer is asked once what it has': {
    ...HONEST,
    symptom: /repairEnds/,
    have: have => {
      const heard = new Map<string, ReturnType<typeof have>>()
      return (peer, stream) => {
        const name = `${peer} ${stream}`
        const answer = heard.get(name) ?? have(peer, stream)
        heard.set(name, answer)
        answer.catch(() => heard.delete(name))
        return answer
      }
    }
  },
  'the dead are waited for without end': { ...HONEST, symptom: /repairEnds/, lost: () => ({ has: () => false }) },
  'who leaves counts as staying': {
    ...HONEST,
    symptom: /repairEnds/,
    record: record => ({ ...record, members: record.members.map(member => ({ ...member, leaving: false })) })
  },
  'a damaged column counts as whole': {
    ...HONEST,
    symptom: /repairEnds/,
    store: store => ({
      ...store,
      verifyColumn: async (...place) => {
        const state = await store.verifyColumn(...place)
        return state === 'damaged' ? 'whole' : state
      }
    })
  },
  'a rebuilt column is put into the wrong grid': {
    ...HONEST,
    symptom: /repairEnds|repairRests/,
    store: store => ({ ...store, putColumn: (stream, _, ...rest) => store.putColumn(stream, 0, ...rest) })
  }
}
