/** Messages to bytes. */
import { writeActions, writeInstructions } from './actions.ts'
import { ByteWriter } from './bytes.ts'
import { writeMatch } from './match.ts'
import {
  type Envelope,
  FLOW_ADD,
  FLOW_DELETE_STRICT,
  type FlowEntry,
  type FlowStatistics,
  type Match,
  type Message,
  MULTIPART,
  MULTIPART_MORE,
  OPENFLOW_VERSION,
  PORT_ANY,
  PORT_CONTROLLER,
  type SwitchPort,
  TYPE
} from './messages.ts'

const NO_BUFFER = 0xffff_ffff
const ALL_TABLES = 0xff
const PORT_NAME_BYTES = 16
const MAX_MESSAGE_BYTES = 0xffff
const VERSION_BITMAP = 1

/** Throws RangeError on what the format has no room for, TypeError on what is not for writing. */
export function encode({ xid, message }: Envelope): Uint8Array {
  const out = new ByteWriter()
  out.u8(OPENFLOW_VERSION).u8(typeOf(message)).u16(0).u32(xid)
  writeBody(out, message)
  if (out.length > MAX_MESSAGE_BYTES) {
    throw new RangeError(`an OpenFlow message of ${out.length} bytes; at most ${MAX_MESSAGE_BYTES} are possible`)
  }
  out.lengthAt(2, 0)
  return out.take()
}

function typeOf(message: Message): number {
  switch (message.type) {
    case 'flowAdd':
    case 'flowDelete':
      return TYPE.flowMod
    case 'portsRequest':
    case 'flowsRequest':
      return TYPE.multipartRequest
    case 'portsReply':
    case 'flowsReply':
      return TYPE.multipartReply
    case 'other':
      throw new TypeError(`a message of type ${message.code} is not for writing`)
    default:
      return TYPE[message.type]
  }
}

function writeBody(out: ByteWriter, message: Message): void {
  switch (message.type) {
    case 'hello':
      return writeHello(out, message.versions)
    case 'error':
      out.u16(message.category).u16(message.code).raw(message.data)
      return
    case 'echoRequest':
    case 'echoReply':
      out.raw(message.data)
      return
    case 'featuresReply':
      out.u64(message.datapathId).u32(0).u8(message.tables).zeros(11)
      return
    case 'setConfig':
      out.u16(0).u16(message.missSendBytes)
      return
    case 'packetIn':
      out.u32(NO_BUFFER).u16(message.frame.length).u8(REASON_ACTION).u8(message.table).u64(message.cookie)
      writeMatch(out, message.match)
      out.zeros(2).raw(message.frame)
      return
    case 'packetOut':
      return writePacketOut(out, message)
    case 'flowAdd':
      writeFlowMod(out, FLOW_ADD, message.cookie, message)
      return writeInstructions(out, message.instructions)
    case 'flowDelete':
      return writeFlowMod(out, FLOW_DELETE_STRICT, 0n, message)
    case 'portsRequest':
      out.u16(MULTIPART.portDescription).zeros(6)
      return
    case 'portsReply':
      return writeReply(out, MULTIPART.portDescription, message.more, message.ports, writePort)
    case 'flowsRequest':
      out.u16(MULTIPART.flow).zeros(6).u8(ALL_TABLES).zeros(3).u32(PORT_ANY).u32(PORT_ANY).zeros(4)
      out.u64(message.cookie).u64(message.cookieMask)
      return writeMatch(out, {})
    case 'flowsReply':
      return writeReply(out, MULTIPART.flow, message.more, message.flows, writeFlow)
    case 'featuresRequest':
    case 'barrierRequest':
    case 'barrierReply':
    case 'other': // refused by `typeOf`
  }
}

/** OFPR_ACTION: an entry said so. */
const REASON_ACTION = 1

function writeHello(out: ByteWriter, versions: readonly number[]): void {
  if (versions.length === 0) return
  const bits = versions.reduce((sum, version) => sum | (1 << version), 0) >>> 0
  out.u16(VERSION_BITMAP).u16(8).u32(bits)
}

function writePacketOut(out: ByteWriter, { actions, frame }: Extract<Message, { type: 'packetOut' }>): void {
  out.u32(NO_BUFFER).u32(PORT_CONTROLLER)
  const lengthAt = out.length
  out.u16(0).zeros(6)
  const start = out.length
  writeActions(out, actions)
  out.lengthAt(lengthAt, start)
  out.raw(frame)
}

function writeFlowMod(
  out: ByteWriter,
  command: number,
  cookie: bigint,
  { table, priority, match }: { readonly table: number; readonly priority: number; readonly match: Match }
): void {
  out.u64(cookie).u64(0n).u8(table).u8(command).u16(0).u16(0).u16(priority)
  out.u32(NO_BUFFER).u32(PORT_ANY).u32(PORT_ANY).u16(0).zeros(2)
  writeMatch(out, match)
}

function writeReply<T>(
  out: ByteWriter,
  kind: number,
  more: boolean,
  items: readonly T[],
  write: (out: ByteWriter, item: T) => void
): void {
  out
    .u16(kind)
    .u16(more ? MULTIPART_MORE : 0)
    .zeros(4)
  for (const item of items) write(out, item)
}

function writePort(out: ByteWriter, { port, mac, name }: SwitchPort): void {
  const bytes = Buffer.from(name, 'latin1')
  // A byte of zero ends it.
  if (bytes.length >= PORT_NAME_BYTES) throw new RangeError(`a port's name of ${bytes.length} bytes`)
  out
    .u32(port)
    .zeros(4)
    .u48(mac)
    .zeros(2)
    .raw(bytes)
    .zeros(PORT_NAME_BYTES - bytes.length)
    .zeros(32)
}

function writeFlow(out: ByteWriter, flow: FlowStatistics): void {
  const start = out.length
  out.u16(0).u8(flow.table).zeros(9).u16(flow.priority).zeros(10)
  out.u64(flow.cookie).u64(flow.packets).u64(flow.bytes)
  writeMatch(out, flow.match)
  writeInstructions(out, flow.instructions)
  out.lengthAt(start, start)
}

/** The message that puts `entry` into the switch. */
export const flowAdd = (entry: FlowEntry): Message => ({ type: 'flowAdd', ...entry })
