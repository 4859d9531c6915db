/**
 * Bytes to messages, from a switch that is not trusted with our memory: the limit first (u16 length of the header, and
 * all of it is here), then the version, then the shape. What is unknown is passed over; what is wrong is refused.
 */
import { readActions, readInstructions } from './actions.ts'
import { ByteReader, malformed } from './bytes.ts'
import { readMatch } from './match.ts'
import { DiapauseError } from '../../node/errors.ts'
import {
  type Envelope,
  FLOW_ADD,
  FLOW_DELETE_STRICT,
  type FlowStatistics,
  type Message,
  MULTIPART,
  MULTIPART_MORE,
  OPENFLOW_VERSION,
  type SwitchPort,
  TYPE
} from './messages.ts'

export const HEADER_BYTES = 8
const VERSION_BITMAP = 1
const PORT_NAME_BYTES = 16

/**
 * One whole message; what is in it are views of `bytes`. OPENFLOW_VERSION: the switch speaks another version (a hello is
 * taken in any). OPENFLOW_MALFORMED: anything else that is wrong.
 */
export function decode(bytes: Uint8Array): Envelope {
  if (bytes.length < HEADER_BYTES) throw malformed(`${bytes.length} bytes are no header`)
  const from = new ByteReader(bytes)
  const version = from.u8()
  const type = from.u8()
  const length = from.u16()
  if (length !== bytes.length) throw malformed(`its header says ${length} bytes; it has ${bytes.length}`)
  const xid = from.u32()
  if (type === TYPE.hello) return { xid, message: readHello(from, version) }
  if (version !== OPENFLOW_VERSION) {
    throw new DiapauseError(
      'OPENFLOW_VERSION',
      `the switch speaks OpenFlow version ${version}: let the bridge speak 1.3 (ovs-vsctl set bridge BR protocols=OpenFlow13)`
    )
  }
  return { xid, message: readBody(from, type) }
}

function readBody(from: ByteReader, type: number): Message {
  switch (type) {
    case TYPE.error:
      return { type: 'error', category: from.u16(), code: from.u16(), data: from.raw(from.left) }
    case TYPE.echoRequest:
      return { type: 'echoRequest', data: from.raw(from.left) }
    case TYPE.echoReply:
      return { type: 'echoReply', data: from.raw(from.left) }
    case TYPE.featuresRequest:
      return { type: 'featuresRequest' }
    case TYPE.featuresReply:
      return readFeatures(from)
    case TYPE.setConfig:
      from.skip(2)
      return { type: 'setConfig', missSendBytes: from.u16() }
    case TYPE.packetIn:
      return readPacketIn(from)
    case TYPE.packetOut:
      return readPacketOut(from)
    case TYPE.flowMod:
      return readFlowMod(from)
    case TYPE.multipartRequest:
      return readMultipartRequest(from)
    case TYPE.multipartReply:
      return readMultipartReply(from)
    case TYPE.barrierRequest:
      return { type: 'barrierRequest' }
    case TYPE.barrierReply:
      return { type: 'barrierReply' }
    default:
      return { type: 'other', code: type }
  }
}

/** Elements are u16 type, u16 length and so many bytes in all, padded to eight (7.5.1). */
function readHello(from: ByteReader, version: number): Message {
  const versions: number[] = []
  while (from.left > 0) {
    const type = from.u16()
    const length = from.u16()
    const body = from.part(length - 4)
    from.skip(Math.min(from.left, (8 - (length % 8)) % 8))
    for (let base = 0; type === VERSION_BITMAP && body.left > 0; base += 32) {
      const bits = body.u32()
      for (let bit = 0; bit < 32; bit++) if (((bits >>> bit) & 1) === 1) versions.push(base + bit)
    }
  }
  // Without a bitmap a side knows the versions up to the one in its header (6.3.1).
  if (versions.length === 0) for (let known = 1; known <= version; known++) versions.push(known)
  return { type: 'hello', versions }
}

function readFeatures(from: ByteReader): Message {
  const datapathId = from.u64()
  from.skip(4)
  const tables = from.u8()
  from.skip(11)
  return { type: 'featuresReply', datapathId, tables }
}

function readPacketIn(from: ByteReader): Message {
  from.skip(4)
  const total = from.u16()
  from.skip(1)
  const table = from.u8()
  const cookie = from.u64()
  const match = readMatch(from)
  from.skip(2)
  if (from.left !== total) throw malformed(`a packet-in with ${from.left} of ${total} bytes of its frame`)
  return { type: 'packetIn', table, cookie, match, frame: from.raw(from.left) }
}

function readPacketOut(from: ByteReader): Message {
  from.skip(8)
  const actionBytes = from.u16()
  from.skip(6)
  const actions = readActions(from.part(actionBytes))
  return { type: 'packetOut', actions, frame: from.raw(from.left) }
}

function readFlowMod(from: ByteReader): Message {
  const cookie = from.u64()
  from.skip(8)
  const table = from.u8()
  const command = from.u8()
  from.skip(4)
  const priority = from.u16()
  from.skip(16)
  const match = readMatch(from)
  if (command === FLOW_DELETE_STRICT) return { type: 'flowDelete', table, priority, match }
  if (command !== FLOW_ADD) return { type: 'other', code: TYPE.flowMod }
  return { type: 'flowAdd', table, priority, match, instructions: readInstructions(from), cookie }
}

function readMultipartRequest(from: ByteReader): Message {
  const kind = from.u16()
  from.skip(6)
  if (kind === MULTIPART.portDescription) return { type: 'portsRequest' }
  if (kind !== MULTIPART.flow) return { type: 'other', code: TYPE.multipartRequest }
  from.skip(16)
  return { type: 'flowsRequest', cookie: from.u64(), cookieMask: from.u64() }
}

function readMultipartReply(from: ByteReader): Message {
  const kind = from.u16()
  const more = (from.u16() & MULTIPART_MORE) !== 0
  from.skip(4)
  if (kind === MULTIPART.portDescription) return { type: 'portsReply', more, ports: readAll(from, readPort) }
  if (kind === MULTIPART.flow) return { type: 'flowsReply', more, flows: readAll(from, readFlow) }
  return { type: 'other', code: TYPE.multipartReply }
}

function readAll<T>(from: ByteReader, read: (from: ByteReader) => T): T[] {
  const items: T[] = []
  while (from.left > 0) items.push(read(from))
  return items
}

function readPort(from: ByteReader): SwitchPort {
  const port = from.u32()
  from.skip(4)
  const mac = from.u48()
  from.skip(2)
  const name = from.raw(PORT_NAME_BYTES).toString('latin1')
  from.skip(32)
  return { port, mac, name: name.split('\0', 1)[0] ?? '' }
}

function readFlow(from: ByteReader): FlowStatistics {
  const part = from.part(from.u16() - 2)
  const table = part.u8()
  part.skip(9)
  const priority = part.u16()
  part.skip(10)
  const [cookie, packets, bytes] = [part.u64(), part.u64(), part.u64()]
  const match = readMatch(part)
  return { table, priority, match, instructions: readInstructions(part), cookie, packets, bytes }
}
