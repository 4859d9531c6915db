/** What lies within the messages of other peers: their frames on a stream, values of registers, answers and events as JSON. */
import assert from 'node:assert/strict'
import { ZodError } from 'zod'
import { openReading } from '../../node/composition/reading.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { ReadModels } from '../../node/edge/read-models.ts'
import type { Clock, ControlBus } from '../../node/ports.ts'
import { encodeAddresses, takeAddresses } from '../../node/switch/addresses.ts'
import { answerIn } from '../../node/switch/openflow/control.ts'
import { markerFrame, readMarker, readTagged, untagged } from '../../node/switch/openflow/tagged.ts'
import { parseBaseRecord } from '../../protocols/base.ts'
import type { Random } from '../../protocols/core.ts'
import { parseGroupRecord } from '../../protocols/epoch/messages.ts'
import { parseClusterRecord } from '../../protocols/membership/record.ts'
import type { OverviewMessage } from '../../protocols/overview/messages.ts'
import { decodeValue, encodeValue } from '../../protocols/register/value.ts'
import { frameHeader, frames, MessageCutter } from '../../protocols/stream.ts'
import { aStatus, member } from '../unit/status-support.ts'
import { baseRecords, clusterRecord, ENTRY, GROUPS, OTHER, PEER, REPORT, SEEN } from './message-seeds.ts'
import { mutate, mutateValue } from './mutate.ts'
import { attempt, chunksOf, inAnyChunks, refusal, type Target } from './target.ts'

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))
const textOf = (input: Uint8Array): string => Buffer.from(input).toString('utf8')
const latin = (input: Uint8Array): string => Buffer.from(input).toString('latin1')

// ---------------------------------------------------------------------------------------------- messages on a stream

const MOST_BYTES = 700
const FRAMING = /^FRAME_(OVERSIZE|TRUNCATED)$/

/** Cut in any chunks and read as a stream, it is the same: what came before a message that is refused, too. */
async function wire(input: Uint8Array, random: Random): Promise<string | undefined> {
  let heard: string[] = []
  const refused = inAnyChunks(FRAMING, { input, random }, chunks => {
    const cutter = new MessageCutter(MOST_BYTES)
    heard = []
    for (const chunk of chunks) {
      cutter.push(chunk, message => {
        assert.ok(message.length <= MOST_BYTES)
        heard.push(latin(message))
      })
      chunk.fill(0xa5) // what is not whole yet must be a copy
    }
    if (cutter.partial) throw new DiapauseError('FRAME_TRUNCATED', 'the stream ended inside a message')
    return heard.join()
  })
  const streamed: string[] = []
  let ended: string | undefined
  try {
    for await (const message of frames(arriving(input, random), MOST_BYTES)) streamed.push(latin(message))
  } catch (error) {
    ended = refusal(error, FRAMING)
  }
  assert.deepEqual([ended, streamed], [refused, heard])
  return refused
}

async function* arriving(input: Uint8Array, random: Random): AsyncGenerator<Uint8Array[]> {
  const chunks = chunksOf(input, random)
  while (chunks.length > 0) yield chunks.splice(0, 3)
}

const wireSeeds = (): Uint8Array[] => {
  const messages = [0, 1, 300, MOST_BYTES].map(length => [frameHeader(length), new Uint8Array(length).fill(length)])
  return [messages.flat(), ...messages].map(parts => Uint8Array.from(Buffer.concat(parts)))
}

// ---------------------------------------------------------------------------------------------- values of registers

const REGISTERED = [parseGroupRecord, parseClusterRecord, parseBaseRecord]

/** What a reader has of a value can be written again as the same, and each kind of register takes it or does not. */
function registerValue(input: Uint8Array): string | undefined {
  return attempt(
    /^REGISTER_VALUE$/,
    () => decodeValue(input),
    value => {
      assert.deepEqual(decodeValue(encodeValue(value)), value)
      for (const parse of REGISTERED) {
        try {
          parse(value)
        } catch (error) {
          if (!(error instanceof ZodError)) throw error
        }
      }
    }
  )
}

const valueSeeds = (): Uint8Array[] => [...GROUPS, clusterRecord, ...baseRecords].map(encodeValue)

function mutateRegisterValue(input: Uint8Array, random: Random, seeds: readonly Uint8Array[]): Uint8Array {
  if (random() < 0.5) return mutate(input, random, seeds)
  return encodeValue(mutateValue(decodeValue(input), random))
}

// ---------------------------------------------------------------------------------------------- answers and events

const [SELF, MEMBER, NOW_MS] = [PEER, OTHER, 1e6]
const GROUP = parseGroupRecord(GROUPS[1])

/** Time that goes on as fast as it is waited for, until `stop`. */
function fastClock() {
  let [nowMs, isOver] = [0, false]
  const after = (ms: number, act: () => void): (() => void) => {
    const waiting = setImmediate(() => {
      nowMs += ms
      if (!isOver) act()
    })
    return () => clearImmediate(waiting)
  }
  return { clock: { now: () => nowMs, after }, stop: () => void (isOver = true) }
}

/** What comes of asking one other peer, which answers every question with `json` at once and tells `json` as an event. */
async function asked<T>(json: string, ask: (reads: ReadModels) => Promise<T>): Promise<T> {
  const { clock, stop } = fastClock()
  try {
    return await ask(asker(json, clock))
  } finally {
    stop()
  }
}

function asker(json: string, clock: Clock): ReadModels {
  let receive: (from: string, message: unknown) => void = () => {}
  const answerTo = (message: OverviewMessage): unknown =>
    message.kind === 'ask'
      ? { kind: 'answer', id: message.id, nowMs: NOW_MS, json }
      : { kind: 'events', run: 'r', nowMs: NOW_MS, events: [{ seq: 1, json }] }
  const bus = {
    on(_: string, parse: (raw: unknown) => unknown, handler: (from: string, message: unknown) => void) {
      receive = (from, message) => {
        let parsed: unknown
        try {
          parsed = parse(message)
        } catch (error) {
          if (error instanceof ZodError) return // the bus drops it
          throw error
        }
        handler(from, parsed)
      }
    },
    send(_: string, __: string, message: OverviewMessage) {
      queueMicrotask(() => receive(MEMBER, answerTo(message)))
      return true
    }
  } as unknown as ControlBus
  return openReading({
    self: SELF,
    bus,
    clock,
    wallMs: () => NOW_MS,
    config: { restore: { togetherMs: 0 }, epochs: { intervalMs: 1_000 } },
    membership: { record: () => clusterRecord },
    directory: { get: () => GROUP ?? undefined, all: () => (GROUP === null ? [] : [GROUP]) },
    storagePeers: { about: ids => ids.map(peer => ({ peer, vmMemoryMiB: 512 })) },
    decisions: { newest: () => [ENTRY], why: () => Promise.reject(new Error('nobody asks')) },
    groups: { talksOf: async () => ({}) },
    history: { of: () => [SEEN] },
    redundancy: undefined,
    transport: { onConnection() {} },
    events: { recent: () => [], subscribe: () => () => {} },
    status: async () => ({ ...aStatus, id: SELF, members: [SELF, MEMBER].map(id => ({ ...member(id), id })) }),
    teardown: { add() {} }
  })
}

/** Whatever one member says, people are told all the rest, and that its answer cannot be read; and that can be sent to them. */
async function overview(input: Uint8Array): Promise<string | undefined> {
  const told = await asked(textOf(input), reads =>
    Promise.all([reads.overview(), reads.history('bank', { limit: 100 }), reads.decisions({ agoMs: 1e9, limit: 100 })])
  )
  for (const each of told) assert.ok(JSON.stringify(each).length > 0)
  const silent = told.filter((each, at) =>
    at === 0
      ? !told[0].members.some(({ id, report }) => id === MEMBER && report !== undefined && report !== null)
      : 'silent' in each && each.silent.length > 0
  )
  return silent.length === told.length ? 'not read' : undefined
}

async function clusterEvents(input: Uint8Array): Promise<string | undefined> {
  const events = await asked(textOf(input), reads => reads.clusterEvents.recent())
  assert.ok(events.length <= 1)
  for (const { atMs, kind, ...event } of events) {
    assert.ok(Number.isFinite(atMs) && typeof kind === 'string')
    assert.ok(JSON.stringify(event).length > 0)
  }
  return events.length === 1 ? undefined : 'no event'
}

/** What a parser takes and what is made of it again may differ in how deep it goes. */
const NESTED = `${'['.repeat(2_000)}${']'.repeat(2_000)}`
const mutateJson = (input: Uint8Array, random: Random, seeds: readonly Uint8Array[]): Uint8Array =>
  random() < 0.3 ? mutate(input, random, seeds) : bytes(JSON.stringify(mutateValue(JSON.parse(textOf(input)), random)))
const answers = [REPORT, { epochs: [SEEN, SEEN], more: true }, { entries: [ENTRY, ENTRY], left: 1 }]
const event = { atMs: NOW_MS, kind: 'vm', vm: 'vm1', group: 'bank' }

// ---------------------------------------------------------------------------------------------- switches

function addresses(input: Uint8Array): string | undefined {
  return attempt(
    /^FRAMES_MALFORMED$/,
    () => takeAddresses(input),
    ({ addresses: heard, rest }) => {
      if (heard.length > 0) assert.deepEqual(Buffer.concat([encodeAddresses(heard), rest]), Buffer.from(input))
      else assert.ok(rest.length <= input.length)
    }
  )
}

/** A frame from a bridge. */
function tagged(input: Uint8Array): string | undefined {
  const frame = readTagged(input)
  const marker = readMarker(input)
  if (frame === undefined) {
    assert.equal(marker, undefined)
    return 'not tagged'
  }
  assert.ok(frame.vid < 4096 && frame.pcp < 8 && Math.max(frame.source, frame.destination) < 2 ** 48)
  assert.equal(untagged(input, 3).length, input.length)
  return undefined
}

/** An answer is not there before its last byte, whatever comes behind. */
function control(input: Uint8Array): string | undefined {
  const answer = answerIn(textOf(input))
  assert.ok((answer?.refused?.length ?? 0) <= 300)
  return answer === undefined ? 'no answer' : undefined
}

const marker = { generation: 3, colour: 9, source: 0x525400000001, vid: 77 }

export const peerTargets: readonly Target[] = [
  { name: 'wire', group: 'messages', summary: 'messages on a stream, in any chunks', seeds: wireSeeds, run: wire },
  {
    name: 'register-value',
    group: 'messages',
    summary: 'the value of a register, which a member wrote',
    seeds: valueSeeds,
    mutate: mutateRegisterValue,
    run: registerValue
  },
  {
    name: 'overview',
    group: 'messages',
    summary: 'what another peer says of itself, its epochs and its decisions',
    seeds: () => [...answers.map(answer => JSON.stringify(answer)), NESTED].map(bytes),
    mutate: mutateJson,
    run: overview
  },
  {
    name: 'cluster-events',
    group: 'messages',
    summary: 'what happened at another peer',
    seeds: () => [JSON.stringify(event), `{"atMs":1,"kind":"x","of":${NESTED}}`].map(bytes),
    mutate: mutateJson,
    run: clusterEvents
  },
  {
    name: 'addresses',
    group: 'messages',
    summary: "addresses behind a VM's NICs, before the frames of an image",
    seeds: () => {
      const heard = [0, 3].map(nic => ({ nic, mac: 0x525400000001 }))
      return [Uint8Array.from(Buffer.concat([encodeAddresses(heard), Buffer.from([0, 0, 0, 3, 1, 2, 3])]))]
    },
    run: addresses
  },
  {
    name: 'tagged',
    group: 'messages',
    summary: 'frames between bridges, and markers among them',
    seeds: () => [Uint8Array.from(markerFrame(marker)), new Uint8Array(90).fill(0x81)],
    run: tagged
  },
  {
    name: 'openvswitch',
    group: 'texts',
    summary: 'what the daemon of Open vSwitch answers on its control socket',
    seeds: () => [
      ...[null, 'no such command'].map(error => bytes(JSON.stringify({ id: 0, result: '', error }))),
      bytes(`{"id":0,"error":${NESTED}}`)
    ],
    mutate: mutateJson,
    run: control
  }
]
