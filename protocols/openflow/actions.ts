/** Actions and instructions (TS-009, A.2.4 and A.2.5): u16 type and u16 length before each, padded to eight bytes. */
import { type ByteReader, type ByteWriter, malformed } from './bytes.ts'
import { FIELD, readField, writeVlanPcp, writeVlanVid } from './match.ts'
import { type Action, type Instruction, PORT_CONTROLLER, WHOLE_FRAME } from './messages.ts'

const OUTPUT = 0
const PUSH_VLAN = 17
const POP_VLAN = 18
const SET_FIELD = 25

const GOTO_TABLE = 1
const WRITE_METADATA = 2
const APPLY_ACTIONS = 4

/** EtherType of a VLAN tag (IEEE 802.1Q). */
const VLAN = 0x8100
const ALL_BITS = 0xffff_ffff_ffff_ffffn
const HEAD_BYTES = 4

/** TypeError on an action that is not for writing; RangeError on numbers that do not fit. */
export function writeActions(out: ByteWriter, actions: readonly Action[]): void {
  for (const action of actions) {
    const start = out.length
    writeAction(out, action)
    out.pad8(start)
    out.lengthAt(start + 2, start)
  }
}

function writeAction(out: ByteWriter, action: Action): void {
  switch (action.type) {
    case 'output':
      out.u16(OUTPUT).u16(0).u32(action.port)
      out.u16(action.port === PORT_CONTROLLER ? WHOLE_FRAME : 0).zeros(6)
      break
    case 'pushVlan':
      out.u16(PUSH_VLAN).u16(0).u16(VLAN).zeros(2)
      break
    case 'popVlan':
      out.u16(POP_VLAN).u16(0).zeros(4)
      break
    case 'setVlanVid':
      writeVlanVid(out.u16(SET_FIELD).u16(0), action.vid)
      break
    case 'setVlanPcp':
      writeVlanPcp(out.u16(SET_FIELD).u16(0), action.pcp)
      break
    case 'other':
      throw new TypeError(`an action of type ${action.code} is not for writing`)
  }
}

export function writeInstructions(out: ByteWriter, instructions: readonly Instruction[]): void {
  for (const instruction of instructions) {
    const start = out.length
    switch (instruction.type) {
      case 'goto':
        out.u16(GOTO_TABLE).u16(0).u8(instruction.table).zeros(3)
        break
      case 'metadata':
        out.u16(WRITE_METADATA).u16(0).zeros(4).u64(BigInt(instruction.metadata)).u64(ALL_BITS)
        break
      case 'apply':
        writeActions(out.u16(APPLY_ACTIONS).u16(0).zeros(4), instruction.actions)
        break
      case 'other':
        throw new TypeError(`an instruction of type ${instruction.code} is not for writing`)
    }
    out.lengthAt(start + 2, start)
  }
}

export function readActions(from: ByteReader): Action[] {
  const actions: Action[] = []
  while (from.left > 0) {
    const { type, body } = readHead(from)
    actions.push(actionOf(type, body))
  }
  return actions
}

export function readInstructions(from: ByteReader): Instruction[] {
  const instructions: Instruction[] = []
  while (from.left > 0) {
    const { type, body } = readHead(from)
    instructions.push(instructionOf(type, body))
  }
  return instructions
}

function readHead(from: ByteReader): { readonly type: number; readonly body: ByteReader } {
  const type = from.u16()
  const length = from.u16()
  if (length < 8 || length % 8 !== 0) throw malformed(`an action or instruction of ${length} bytes`)
  return { type, body: from.part(length - HEAD_BYTES) }
}

function actionOf(type: number, body: ByteReader): Action {
  switch (type) {
    case OUTPUT:
      return { type: 'output', port: body.u32() }
    case PUSH_VLAN:
      return body.u16() === VLAN ? { type: 'pushVlan' } : { type: 'other', code: type }
    case POP_VLAN:
      return { type: 'popVlan' }
    case SET_FIELD: {
      const { field, value } = readField(body)
      if (field === FIELD.vlanVid) return { type: 'setVlanVid', vid: value.u16() & 0xfff }
      if (field === FIELD.vlanPcp) return { type: 'setVlanPcp', pcp: value.u8() }
      return { type: 'other', code: type }
    }
    default:
      return { type: 'other', code: type }
  }
}

function instructionOf(type: number, body: ByteReader): Instruction {
  switch (type) {
    case GOTO_TABLE:
      return { type: 'goto', table: body.u8() }
    case WRITE_METADATA: {
      body.skip(4)
      const metadata = body.u64()
      return metadata > 0xffff_ffffn ? { type: 'other', code: type } : { type: 'metadata', metadata: Number(metadata) }
    }
    case APPLY_ACTIONS:
      body.skip(4)
      return { type: 'apply', actions: readActions(body) }
    default:
      return { type: 'other', code: type }
  }
}
