/** A peer's status as the API tells it. */
import type { PeerStatus } from '../../node/edge/view.ts'

export const member = (name: string, role: 'storage' | 'witness' = 'storage') =>
  ({
    name,
    id: `id-${name}`,
    address: '/ip4/127.0.0.1/tcp/1',
    role,
    votes: true,
    liveness: 'alive',
    connected: true
  }) as const

export const aStatus: PeerStatus = {
  name: 'one',
  id: 'id-one',
  version: '0.1.0',
  cluster: 'c',
  pid: 1,
  uptimeMs: 5,
  hypervisor: 'QEMU 7.2, tcg',
  capture: { mode: 'dirty' },
  members: [member('one'), member('two'), member('wit', 'witness')],
  code: { k: 3, m: 2, storage: 2, tolerates: 0, domains: [] },
  groups: [],
  frames: {
    delivered: 0,
    heldEarly: 0,
    recordedInFlight: 0,
    refusedGeneration: 0,
    refusedSource: 0,
    heldFenced: 0,
    droppedUnknown: 0,
    bridgeUp: 0,
    bridgeDown: 0,
    outputWaiting: 0,
    outputWaitingBytes: 0,
    outputReleased: 0,
    outputDiscarded: 0,
    outputLongestMs: 0
  },
  refused: { frames: 0, reports: 0, shards: 0, claims: 0, changes: 0 },
  store: { streams: 0, manifests: 0, bytes: 0 },
  redundancy: null
}
