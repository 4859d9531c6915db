/**
 * OpenFlow 1.3 (ONF TS-009, wire version 0x04), as far as diapause speaks it with Open vSwitch: what a controller says
 * and what it is answered. Addresses are numbers (`macNumber`), 64-bit words are bigints. Sections are of TS-009.
 */

export const OPENFLOW_VERSION = 4
/** Reserved port numbers (A.2.1). */
export const PORT_CONTROLLER = 0xffff_fffd
export const PORT_ANY = 0xffff_ffff
/** `max_len` of an output to the controller: the whole frame, and no copy kept in the switch (A.2.5). */
export const WHOLE_FRAME = 0xffff

/** Fields that a frame must have, all of them. An empty match fits every frame. */
export interface Match {
  readonly inPort?: number
  /** What an earlier table wrote; below 2^32 here. */
  readonly metadata?: number
  readonly ethDst?: number
  /** The group bit of the destination is set. Not beside `ethDst`. */
  readonly multicast?: true
  readonly ethSrc?: number
  readonly ethType?: number
  /** The frame has a VLAN tag with this VID. */
  readonly vlanVid?: number
  /** Needs `vlanVid`. */
  readonly vlanPcp?: number
}

export type Action =
  | { readonly type: 'output'; readonly port: number }
  | { readonly type: 'pushVlan' }
  | { readonly type: 'popVlan' }
  | { readonly type: 'setVlanVid'; readonly vid: number }
  | { readonly type: 'setVlanPcp'; readonly pcp: number }
  /** One that diapause never writes. */
  | { readonly type: 'other'; readonly code: number }

export type Instruction =
  | { readonly type: 'goto'; readonly table: number }
  | { readonly type: 'metadata'; readonly metadata: number }
  | { readonly type: 'apply'; readonly actions: readonly Action[] }
  | { readonly type: 'other'; readonly code: number }

/** An entry is known by its table, priority and match; frames that fit none are dropped. */
export interface FlowEntry {
  readonly table: number
  readonly priority: number
  readonly match: Match
  /** None: the frame is dropped. */
  readonly instructions: readonly Instruction[]
  readonly cookie: bigint
}

export interface SwitchPort {
  readonly port: number
  readonly mac: number
  readonly name: string
}

export interface FlowStatistics extends FlowEntry {
  readonly packets: bigint
  readonly bytes: bigint
}

export type Message =
  /** Both sides say it first: the versions they know; none: those up to the one in the header. */
  | { readonly type: 'hello'; readonly versions: readonly number[] }
  /** The switch has refused the message of the same xid; `data` is its beginning (7.4.1). */
  | { readonly type: 'error'; readonly category: number; readonly code: number; readonly data: Uint8Array }
  /** The receiver answers with an echoReply of the same data and xid. */
  | { readonly type: 'echoRequest'; readonly data: Uint8Array }
  | { readonly type: 'echoReply'; readonly data: Uint8Array }
  | { readonly type: 'featuresRequest' }
  | { readonly type: 'featuresReply'; readonly datapathId: bigint; readonly tables: number }
  /** Open vSwitch sends packet-ins to a connection of its management socket only after this, with bytes above 0. */
  | { readonly type: 'setConfig'; readonly missSendBytes: number }
  | {
      readonly type: 'packetIn'
      readonly table: number
      /** Of the entry that sent it up. */
      readonly cookie: bigint
      readonly match: Match
      readonly frame: Uint8Array
    }
  /** The switch applies the actions to the frame. */
  | { readonly type: 'packetOut'; readonly actions: readonly Action[]; readonly frame: Uint8Array }
  /** Puts the entry in the place of the one of the same table, priority and match, in one step, or adds it (6.4). */
  | ({ readonly type: 'flowAdd' } & FlowEntry)
  /** Removes the entry of this table, priority and match. */
  | { readonly type: 'flowDelete'; readonly table: number; readonly priority: number; readonly match: Match }
  /** Answered when everything before it has been done (6.2). */
  | { readonly type: 'barrierRequest' }
  | { readonly type: 'barrierReply' }
  | { readonly type: 'portsRequest' }
  /** `more`: another reply with this xid follows. */
  | { readonly type: 'portsReply'; readonly more: boolean; readonly ports: readonly SwitchPort[] }
  /** All entries of which the cookie, under the mask, is this. */
  | { readonly type: 'flowsRequest'; readonly cookie: bigint; readonly cookieMask: bigint }
  | { readonly type: 'flowsReply'; readonly more: boolean; readonly flows: readonly FlowStatistics[] }
  /** One that diapause has no use for, and ignores. */
  | { readonly type: 'other'; readonly code: number }

export interface Envelope {
  /** An answer has that of its question. */
  readonly xid: number
  readonly message: Message
}

/** `ofp_type` (A.1). */
export const TYPE = {
  hello: 0,
  error: 1,
  echoRequest: 2,
  echoReply: 3,
  featuresRequest: 5,
  featuresReply: 6,
  setConfig: 9,
  packetIn: 10,
  packetOut: 13,
  flowMod: 14,
  multipartRequest: 18,
  multipartReply: 19,
  barrierRequest: 20,
  barrierReply: 21
} as const

/** `ofp_multipart_type` (A.3.5). */
export const MULTIPART = { flow: 1, portDescription: 13 } as const
export const MULTIPART_MORE = 1
export const FLOW_ADD = 0
export const FLOW_DELETE_STRICT = 4
