/** Whole messages of every kind, to be mutated. */
import { createCipheriv } from 'node:crypto'
import type { BaseRecord } from '../../protocols/base.ts'
import type { Entry } from '../../protocols/decisions/facts.ts'
import type { SeenEpoch } from '../../protocols/epoch/history.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { encodeMessage as encodeControl, envelopeHeader } from '../../protocols/envelope.ts'
import { BatchWriter } from '../../protocols/frames/records.ts'
import { encode } from '../../protocols/openflow/encode.ts'
import type { OwnReport } from '../../protocols/overview/report.ts'
import type { Message } from '../../protocols/openflow/messages.ts'
import { encodeMessage as encodeShards, packColumns } from '../../protocols/shards/messages.ts'

const HASH = 'ab'.repeat(32)
export const PEER = '12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5'
export const OTHER = '12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq'

export function batchSeeds(): Uint8Array[] {
  const writer = new BatchWriter('bank', 3)
  const record = { source: 'vm1', destination: 'vm2', colour: 7, nic: 0 }
  const packet = Buffer.alloc(4 + 60, 0xff)
  packet.writeUInt32BE(60)
  writer.add({ ...record, sequence: 1, packet })
  writer.add({ ...record, sequence: 1, packet: undefined })
  writer.add({ ...record, sequence: 2, packet, nic: 3 })
  writer.add({ ...record, colour: 0, sequence: 0, packet, group: 'shop' })
  return [Uint8Array.from(writer.take().message)]
}

// ---------------------------------------------------------------------------------------------- control messages

const ballot = { counter: 7, peer: PEER }
export const accepted = { ballot, value: new Uint8Array([1]), generation: 2, fence: [{ holder: OTHER, below: 3 }] }
const stats = {
  pages: 1,
  pagesNonZero: 1,
  pagesChanged: 1,
  bytesRaw: 1,
  bytesData: 1,
  bytesStored: 1,
  inFlightFrames: 1
}
export const vm = {
  id: 'vm1',
  nics: [{ mac: '52:54:00:00:00:01', network: 'lan' }],
  memoryMiB: 64,
  kernel: '/boot/kernel',
  initrd: '/boot/initrd',
  append: 'quiet'
}
const group = {
  id: 'bank',
  version: 3,
  generation: 2,
  vms: [vm],
  owners: { vm1: PEER },
  outputCommit: true,
  lastEpoch: 5,
  open: { epoch: 5, proposer: PEER, deadlineMs: 1 },
  committed: { epoch: 4, generation: 1, previousEpoch: 0, images: { vm1: HASH } },
  removed: false
}
const member = {
  address: '/ip4/127.0.0.1/tcp/7401',
  role: 'storage',
  votes: true,
  leaving: false,
  forced: false
} as const
export const clusterRecord: ClusterRecord = {
  id: 'ab'.repeat(16),
  name: 'home',
  version: 4,
  members: [
    { ...member, id: PEER, name: 'one', key: 'Aa09_-' },
    { ...member, id: OTHER, name: 'two', replaces: PEER, key: '' }
  ],
  voters: { version: 2, ids: [PEER], since: { [PEER]: 1 }, settled: true },
  removed: ['x1'],
  invites: [{ id: 'x2', role: 'witness', votes: false, expiresMs: 5 }],
  groupFloor: 0,
  keys: {
    suite: 1,
    newest: { id: 2, madeMs: 7, by: PEER },
    older: [{ id: 0, madeMs: 0, sealed: 'Aa09_-' }]
  }
}
const keeping = {
  kept: [{ epoch: 1, generation: 1, images: { vm1: HASH }, wallMs: 5 }],
  holds: [{ epoch: 1, name: 'audit' }],
  retention: { keepLast: 2, hourly: 1, daily: 0, weekly: 0 },
  drills: {
    schedule: { everyMs: 86_400_000, timeoutMs: 300_000, check: 'books', begunMs: 5, runs: 'p1 run' },
    last: { epoch: 1, by: 'p1', atMs: 6, tookMs: 1.5, failed: 'VM vm1: no shards' }
  }
}
/** As registers hold them. */
export const GROUPS = [group, { ...group, ...keeping }]
export const baseRecords: readonly BaseRecord[] = [
  {
    by: PEER,
    nonce: 123_456_789_012_345,
    stored: { manifest: HASH, extents: 21, blocks: 333, lengths: { offset: 5, length: 7 } }
  },
  { by: PEER, nonce: 7, stored: null }
]
export const REPORT: OwnReport = {
  version: '0.1.0',
  uptimeMs: 5,
  hypervisor: 'QEMU 7.2, tcg',
  capture: 'dirty',
  store: { streams: 1, manifests: 1, bytes: 9 },
  redundancy: { exposed: 0, tolerates: 1, repairedColumns: 0, repairedBytes: 0, due: 0, damaged: 0 },
  standbys: [{ group: 'bank', vm: 'vm1', state: 'ready', epoch: 4 }],
  groups: [{ id: 'bank', generation: 2, leaseRemainingMs: 9, running: [{ vm: 'vm1', capture: 'dirty' }] }]
}
const about = { group: 'bank', generation: 2, epoch: 5, vm: 'vm1' }
const updates = [{ peer: PEER, state: 'suspect', incarnation: 2, from: OTHER }]
const fact = { kind: 'declared-dead', peer: PEER, by: OTHER, suspectedBy: [OTHER], afterMs: 400 } as const
const before = { generation: 2, epoch: 17 }
export const ENTRY: Entry = { seq: 1, atMs: 1, lastAtMs: 2, times: 1, fact }
/** As its owner saw it. */
export const SEEN: SeenEpoch = {
  group: 'bank',
  generation: 2,
  epoch: 5,
  outcome: 'aborted',
  openedAtMs: 5,
  tookMs: 1.5,
  skewMs: 0.5,
  reason: 'why',
  cause: { by: PEER, policy: 'interval', why: 'it was time' },
  vms: { vm1: { cutAtMs: 5, prepareMs: 1, leadMs: 1, pauseMs: 1, durableMs: 9, image: stats } }
}

const mark = { key: 'failover/bank/7', state: 'once' } as const
const notice = { ...mark, kind: 'failover', text: 'what happened', atMs: 5, group: 'bank', vm: 'vm1', member: 'one' }

const MESSAGES: readonly (readonly [string, object])[] = [
  ['swim', { kind: 'ping', seq: 1, incarnation: 1, updates }],
  ['swim', { kind: 'ping-req', seq: 1, target: PEER, updates }],
  ['swim', { kind: 'gossip', updates }],
  ['register', { kind: 'prepare', version: 1, key: 'group/bank', ballot }],
  ['register', { kind: 'accept', version: 1, key: 'group/bank', accepted, promise: ballot }],
  ['register', { kind: 'promised', key: 'group/bank', ballot, accepted }],
  ['register', { kind: 'conflict', key: 'group/bank', ballot, of: 'accept', seen: ballot }],
  ['register', { kind: 'leased', key: 'group/bank', ballot, retryMs: 9.5 }],
  ['register', { kind: 'keys', version: 1, after: '', keys: ['cluster', 'group/bank'], more: true }],
  ['lease', { kind: 'claim', version: 1, session: 1, round: 2, durationMs: 9, claims: [{ key: 'a', generation: 1 }] }],
  ['lease', { kind: 'granted', session: 1, round: 2, refused: [{ key: 'a', generation: 1, newer: 2 }] }],
  ['lease', { kind: 'release', session: 1, round: 2, key: 'a' }],
  ['membership', { kind: 'record', record: clusterRecord }],
  ['membership', { kind: 'ask', version: 1 }],
  ['storage', { labels: { host: 'h', rack: 'r1', site: 's' }, freeBytes: 2 ** 40 }],
  ['host', { vmMemoryMiB: 2 ** 15 }],
  ['restore', { kind: 'ready', group: 'bank', generation: 3, vm: 'vm1' }],
  ['decisions', { kind: 'ask', id: 1, group: 'bank', vm: 'vm1', agoMs: 5 }],
  ['decisions', { kind: 'answer', id: 1, nowMs: 5, entries: [ENTRY, ENTRY], left: 0 }],
  ['overview', { kind: 'ask', id: 1, question: { of: 'report' } }],
  ['overview', { kind: 'ask', id: 2, question: { of: 'history', group: 'bank', before, limit: 9 } }],
  ['overview', { kind: 'ask', id: 3, question: { of: 'decisions', agoMs: 5, limit: 9 } }],
  ['overview', { kind: 'answer', id: 1, nowMs: 5, json: '{}' }],
  ['overview', { kind: 'refusal', id: 1, why: 'why' }],
  ['overview', { kind: 'follow', forMs: 9, have: { run: 'r', seq: 4 } }],
  ['overview', { kind: 'events', run: 'r', nowMs: 5, events: [{ seq: 5, json: '{}' }] }],
  ['console', { kind: 'read', id: 1, group: 'bank', vm: 'vm1', from: -9, waitMs: 5 }],
  ['console', { kind: 'said', id: 1, from: 0, bytes: 'aGVsbG8=' }],
  ['console', { kind: 'type', id: 2, group: 'bank', vm: 'vm1', text: 'audit' }],
  ['console', { kind: 'refusal', id: 2, code: 'VM_ELSEWHERE', why: 'why' }],
  ['notifications', { kind: 'hello', targets: [{ name: 'me', on: ['failover'] }], told: [{ target: 'me', ...mark }] }],
  ['notifications', { kind: 'notice', notice }],
  ['notifications', { kind: 'claim', target: 'me', marks: [mark, mark] }],
  ['epoch', { kind: 'record', record: group }],
  ['epoch', { kind: 'record', record: GROUPS[1] }],
  ['epoch', { kind: 'ask', versions: { bank: 1 } }],
  ['epoch', { kind: 'cut', ...about, counts: { vm2: 1 }, atWallMs: 1.5, prepareMs: 1, leadMs: 1 }],
  ['epoch', { kind: 'durable', ...about, manifest: HASH, stats }],
  ['epoch', { kind: 'failed', ...about, reason: 'why' }]
]

export const controlSeeds = (cluster: Uint8Array): Uint8Array[] =>
  MESSAGES.map(([protocol, message]) =>
    Uint8Array.from(Buffer.concat([envelopeHeader(cluster, protocol), encodeControl(message)]))
  )

// ---------------------------------------------------------------------------------------------- other channels

/** A record of ours for each text, sealed by Node itself. */
export function sealedRecords(key: Uint8Array, texts: readonly Uint8Array[]): Buffer[] {
  return texts.map((text, number) => {
    const nonce = Buffer.alloc(12)
    nonce.writeUInt32LE(number, 4)
    const cipher = createCipheriv('chacha20-poly1305', key, nonce, { authTagLength: 16 })
    const sealed = [cipher.update(text), cipher.final(), cipher.getAuthTag()]
    const head = Buffer.alloc(6)
    head.writeUInt32BE(text.length + 16, 2)
    return Buffer.concat([head, ...sealed])
  })
}

/** Records of ours and of Noise in turn. */
export function directSeed(key: Uint8Array): Uint8Array {
  const noise = Buffer.alloc(2 + 40, 40)
  noise.writeUInt16BE(40)
  const texts = [1, 500, 1_600].map(length => new Uint8Array(length).fill(length))
  return Uint8Array.from(Buffer.concat(sealedRecords(key, texts).flatMap(record => [record, noise])))
}

const payload = new Uint8Array(100).fill(7)
const place = { id: 1, stream: 'bank/vm1/2/5', grid: 3, column: 2 }

export const shardSeeds = (): Uint8Array[] =>
  [
    encodeShards({ kind: 'put', ...place, payload }),
    encodeShards({
      kind: 'get',
      ...place,
      ranges: [
        { offset: 0, length: 64 },
        { offset: 4096, length: 64 }
      ]
    }),
    encodeShards({ kind: 'putManifest', id: 2, hash: HASH, payload }),
    encodeShards({ kind: 'have', id: 4, stream: place.stream }),
    encodeShards({ kind: 'file', id: 5, hash: 'ab'.repeat(32), offset: 4_096 }),
    encodeShards({ kind: 'paths', id: 6, paths: ['/boot/vmlinuz', '/boot/initrd'] }),
    encodeShards({ kind: 'check', id: 4, stream: place.stream, column: 2, firstGrid: 3, grids: 4 }),
    encodeShards({ kind: 'repair', id: 4 }),
    encodeShards({ kind: 'cancel', id: 4 }),
    encodeShards({ kind: 'ok', id: 4, payload: [payload] }),
    encodeShards({ kind: 'ok', id: 4, payload: [packColumns([{ column: 2, grids: 70_000 }])] }),
    encodeShards({ kind: 'error', id: 5, code: 'SHARD_STALE', message: 'why' })
  ].map(parts => Uint8Array.from(Buffer.concat(parts)))

const flow = {
  table: 1,
  priority: 9,
  match: { inPort: 3, ethDst: 0x525400000001, ethType: 0x0800, vlanVid: 5, vlanPcp: 2 },
  instructions: [
    { type: 'apply', actions: [{ type: 'pushVlan' }, { type: 'setVlanVid', vid: 5 }, { type: 'output', port: 2 }] },
    { type: 'metadata', metadata: 7 },
    { type: 'goto', table: 2 }
  ],
  cookie: 5n
} as const
const OPENFLOW: readonly Message[] = [
  { type: 'hello', versions: [1, 4] },
  { type: 'error', category: 1, code: 2, data: payload },
  { type: 'featuresReply', datapathId: 7n, tables: 254 },
  { type: 'packetIn', table: 1, cookie: 5n, match: flow.match, frame: payload },
  { type: 'packetOut', actions: [{ type: 'output', port: 1 }], frame: payload },
  { type: 'flowAdd', ...flow },
  { type: 'flowDelete', table: 1, priority: 9, match: flow.match },
  { type: 'portsReply', more: true, ports: [{ port: 1, mac: 0x525400000001, name: 'tap0' }] },
  { type: 'flowsReply', more: false, flows: [{ ...flow, packets: 1n, bytes: 2n }] }
]

/** Each alone, and all in one stream. */
export function openFlowSeeds(): Uint8Array[] {
  const each = OPENFLOW.map((message, xid) => Uint8Array.from(encode({ xid, message })))
  return [...each, Uint8Array.from(Buffer.concat(each))]
}
