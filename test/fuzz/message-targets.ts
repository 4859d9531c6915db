/** What comes from other peers, from a VM's NIC, from a bridge and from clients of disks. */
import assert from 'node:assert/strict'
import { ZodError } from 'zod'
import { DiapauseError } from '../../node/errors.ts'
import { MAX_REQUEST_BYTES, NbdSession } from '../../node/nbd/protocol.ts'
import { PacketCutter } from '../../node/switch/packets.ts'
import { CONSOLE_PROTOCOL, parseConsoleMessage } from '../../protocols/console/messages.ts'
import { DECISIONS_PROTOCOL, parseDecisionsMessage } from '../../protocols/decisions/messages.ts'
import { RecordCutter, RecordOpener } from '../../protocols/direct-records.ts'
import { clusterHash, decodeEnvelope, encodeMessage, envelopeHeader } from '../../protocols/envelope.ts'
import { parseEpochMessage } from '../../protocols/epoch/messages.ts'
import { parseSwimMessage, PROTOCOL as SWIM_PROTOCOL } from '../../protocols/failure-detector/messages.ts'
import { BatchWriter, decodeBatch, type FrameRecord } from '../../protocols/frames/records.ts'
import { HOST_PROTOCOL, parseHostFacts } from '../../protocols/host-facts.ts'
import { LEASE_PROTOCOL, parseLeaseMessage } from '../../protocols/lease/messages.ts'
import { MEMBERSHIP_PROTOCOL, parseMembershipMessage } from '../../protocols/membership/messages.ts'
import { decode } from '../../protocols/openflow/decode.ts'
import { MessageSplitter } from '../../protocols/openflow/splitter.ts'
import { NOTIFICATIONS_PROTOCOL, parseNotificationMessage } from '../../protocols/notifications/messages.ts'
import { OVERVIEW_PROTOCOL, parseOverviewMessage } from '../../protocols/overview/messages.ts'
import { parseRegisterMessage, REGISTER_PROTOCOL } from '../../protocols/register/messages.ts'
import { parseColumns, parseMessage } from '../../protocols/shards/messages.ts'
import type { Random } from '../../protocols/core.ts'
import { parseStorageFacts, STORAGE_PROTOCOL } from '../../protocols/storage-facts.ts'
import { parseReadyMessage, RESTORE_PROTOCOL } from '../../protocols/restore-line.ts'
import { opening, option, request } from '../unit/nbd-client.ts'
import { batchSeeds, controlSeeds, directSeed, openFlowSeeds, sealedRecords, shardSeeds } from './message-seeds.ts'
import { mutate, mutateValue } from './mutate.ts'
import { attempt, chunksOf, inAnyChunks, refusal, type Target } from './target.ts'

const bytesOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1')

// ---------------------------------------------------------------------------------------------- frames

/** A batch that is written again of what was read is read as the same. */
function frames(input: Uint8Array): string | undefined {
  return attempt(
    /^FRAMES_(FORMAT|MALFORMED)$/,
    () => decodeBatch(input),
    batch => {
      const writer = new BatchWriter(batch.group, batch.generation)
      for (const record of batch.records) writer.add(record)
      if (batch.records.length > 0)
        assert.equal(plain(decodeBatch(writer.take().message).records), plain(batch.records))
    }
  )
}

const plain = (records: readonly FrameRecord[]): string =>
  JSON.stringify(records.map(record => ({ ...record, packet: record.packet && bytesOf(record.packet) })))

// ---------------------------------------------------------------------------------------------- control messages

export const CLUSTER = clusterHash('home')

export const PARSERS: Readonly<Record<string, (message: unknown) => unknown>> = {
  [SWIM_PROTOCOL]: parseSwimMessage,
  [REGISTER_PROTOCOL]: parseRegisterMessage,
  [LEASE_PROTOCOL]: parseLeaseMessage,
  [MEMBERSHIP_PROTOCOL]: parseMembershipMessage,
  [STORAGE_PROTOCOL]: parseStorageFacts,
  [HOST_PROTOCOL]: parseHostFacts,
  [RESTORE_PROTOCOL]: parseReadyMessage,
  [DECISIONS_PROTOCOL]: parseDecisionsMessage,
  [OVERVIEW_PROTOCOL]: parseOverviewMessage,
  [CONSOLE_PROTOCOL]: parseConsoleMessage,
  [NOTIFICATIONS_PROTOCOL]: parseNotificationMessage,
  epoch: parseEpochMessage
}

/** Schemas refuse with errors of their own, which the bus takes as it takes codes. */
function control(input: Uint8Array): string | undefined {
  try {
    const { protocol, message } = decodeEnvelope(input, CLUSTER, name => Object.hasOwn(PARSERS, name))
    PARSERS[protocol]?.(message)
    return undefined
  } catch (error) {
    return error instanceof ZodError ? 'schema' : refusal(error, /^(ENVELOPE|MSGPACK)_|^(SWIM_SHAPE|\w+_MESSAGE)$/)
  }
}

/** Half of the time a field of the message becomes another, and all around it stays right. */
function mutateControl(input: Uint8Array, random: Random, seeds: readonly Uint8Array[]): Uint8Array {
  if (random() < 0.5) return mutate(input, random, seeds)
  const { protocol, message } = decodeEnvelope(input, CLUSTER, () => true)
  const changed = mutateValue(message, random)
  return Buffer.concat([envelopeHeader(CLUSTER, protocol), encodeMessage(changed as object)])
}

// ---------------------------------------------------------------------------------------------- direct records

export const KEY = new Uint8Array(32).fill(5)

/** `input` after it was sealed, or in its place: then nearly all of it is refused. */
function direct(input: Uint8Array, random: Random): string | undefined {
  const sealed = random() < 0.5
  const texts = sealed ? chunksOf(input, random, 4).filter(({ length }) => length > 0) : []
  const stream = sealed ? Uint8Array.from(Buffer.concat(sealedRecords(KEY, texts))) : input
  const refused = inAnyChunks(/^RECORD_(LENGTH|FORGED)$/, { input: stream, random }, chunks => {
    const opener = new RecordOpener(KEY)
    let heard = ''
    const cutter = new RecordCutter({
      record: record => void (heard += `[${bytesOf(opener.open(record))}]`),
      noise: bytes => void (heard += bytesOf(bytes))
    })
    for (const chunk of chunks) cutter.push(chunk)
    if (sealed) assert.equal(heard, texts.map(text => `[${bytesOf(text)}]`).join(''))
    return heard
  })
  if (sealed) assert.equal(refused, undefined)
  return refused
}

// ---------------------------------------------------------------------------------------------- streams of messages

const openFlow = (input: Uint8Array, random: Random): string | undefined =>
  inAnyChunks(/^OPENFLOW_(VERSION|MALFORMED)$/, { input, random, reasons: false }, chunks => {
    const splitter = new MessageSplitter()
    const read = chunks.flatMap(chunk => splitter.push(chunk).map(decode))
    return JSON.stringify(read, (_, value: unknown) => (typeof value === 'bigint' ? `${value}` : value))
  })

const packets = (input: Uint8Array, random: Random): string | undefined =>
  inAnyChunks(/^NIC_FRAMING$/, { input, random }, chunks => {
    const cutter = new PacketCutter()
    let heard = ''
    for (const chunk of chunks) cutter.push(chunk, packet => void (heard += `[${bytesOf(packet)}]`))
    return heard
  })

// ---------------------------------------------------------------------------------------------- disks

const NBD_DISK = { name: 'disk0', bytes: 1 << 20 }

/** Whole talks: one that does all that is spoken, and one of small steps. */
function nbdSeeds(): Uint8Array[] {
  const reads = [request(0, { length: 4096 }), request(7, { length: 1 << 20 }), request(3, {})]
  const refused = [request(1, { length: 64 }), Buffer.alloc(64), request(6, { length: 512 })]
  return [
    Uint8Array.from(Buffer.concat([opening(NBD_DISK.name), ...reads, ...refused, ...reads, request(2, {})])),
    Uint8Array.from(Buffer.concat([opening(NBD_DISK.name, false), ...refused, ...reads])),
    Uint8Array.from(Buffer.concat([opening('other'), option(3), option(2)]))
  ]
}

/** What is asked for lies in the disk. What ends the talk is told as a refusal. */
const nbd = (input: Uint8Array, random: Random): string | undefined =>
  inAnyChunks(/^NBD_CLOSED$/, { input, random }, chunks => {
    const session = new NbdSession([NBD_DISK])
    let heard = ''
    const listen = (): void => {
      for (let event = session.next(); event !== undefined; event = session.next()) {
        if (event.kind === 'close' && event.why !== undefined) throw new DiapauseError('NBD_CLOSED', event.why)
        if (event.kind === 'read' || event.kind === 'status') {
          const { offset, length } = event
          assert.ok(length > 0 && offset >= 0 && offset + length <= NBD_DISK.bytes, `${length} bytes at ${offset}`)
          assert.ok(event.kind === 'status' || length <= MAX_REQUEST_BYTES)
        }
        heard += event.kind === 'send' ? `[${bytesOf(event.bytes)}]` : JSON.stringify(event)
      }
    }
    for (const chunk of chunks) {
      session.push(chunk)
      chunk.fill(0xa5) // a view that was kept longer than allowed would show
      listen()
    }
    return heard
  })

export const messageTargets: readonly Target[] = [
  { name: 'frames', group: 'messages', summary: 'a batch of frames from another peer', seeds: batchSeeds, run: frames },
  {
    name: 'control',
    group: 'messages',
    summary: 'control messages: envelope, MessagePack, and the message of each protocol',
    seeds: () => controlSeeds(CLUSTER),
    run: control,
    mutate: mutateControl
  },
  {
    name: 'direct-records',
    group: 'messages',
    summary: 'records of ours between those of Noise, in any chunks',
    seeds: () => [directSeed(KEY)],
    run: direct
  },
  {
    name: 'shards',
    group: 'messages',
    summary: 'messages about shards',
    seeds: shardSeeds,
    run: input => attempt(/^SHARD_MESSAGE$/, () => shards(input))
  },
  {
    name: 'openflow',
    group: 'messages',
    summary: 'what a bridge says, in any chunks',
    seeds: openFlowSeeds,
    run: openFlow
  },
  {
    name: 'packets',
    group: 'messages',
    summary: "what a VM's NIC sends, in any chunks",
    seeds: () => [Uint8Array.from(Buffer.concat([60, 200].map(length => packet(length))))],
    run: packets
  },
  {
    name: 'nbd',
    group: 'messages',
    summary: 'what a client of disks says, in any chunks',
    seeds: nbdSeeds,
    run: nbd
  }
]

function shards(input: Uint8Array): void {
  const message = parseMessage(input)
  if (message.kind === 'ok') parseColumns(message.payload)
}

function packet(length: number): Buffer {
  const bytes = Buffer.alloc(4 + length, length)
  bytes.writeUInt32BE(length)
  return bytes
}
