/** What a switch does with a frame by its flow entries (TS-009, section 5), as far as diapause's entries go. */
import type { Action, FlowEntry, Match, Message } from '../../protocols/openflow/messages.ts'
import { entryKey } from '../../node/switch/openflow/plan.ts'

export interface Frame {
  readonly inPort: number
  readonly ethSrc: number
  readonly ethDst: number
  readonly ethType: number
  readonly tag: { readonly vid: number; readonly pcp: number } | undefined
}

/** A frame that leaves, by which port and entry. */
export interface Copy {
  readonly port: number
  readonly frame: Frame
  readonly cookie: bigint
}

/** Every copy that leaves, in order. */
export function forward(entries: readonly FlowEntry[], frame: Frame): Copy[] {
  const out: Copy[] = []
  let now = frame
  let metadata = 0
  for (let table: number | undefined = 0; table !== undefined; ) {
    const at: number = table
    const fitting = entries.filter(entry => entry.table === at && fits(entry.match, now, metadata))
    const entry = fitting.toSorted((a, b) => b.priority - a.priority)[0]
    table = undefined
    for (const instruction of entry?.instructions ?? []) {
      if (instruction.type === 'goto') table = instruction.table
      else if (instruction.type === 'metadata') metadata = instruction.metadata
      else if (instruction.type === 'apply') {
        for (const action of instruction.actions) {
          if (action.type !== 'output') now = changed(action, now)
          else if (action.port !== frame.inPort) {
            out.push({ port: action.port, frame: now, cookie: entry?.cookie ?? 0n })
          }
        }
      }
    }
  }
  return out
}

/** Port and tag of every copy that leaves, e.g. `3`, `2 tagged 5/1`, in the order of the ports. */
export function outcome(entries: readonly FlowEntry[], frame: Frame): string[] {
  const copies = forward(entries, frame)
  const tagOf = ({ tag }: Frame): string => (tag === undefined ? '' : ` tagged ${tag.vid}/${tag.pcp}`)
  return copies.map(copy => `${copy.port}${tagOf(copy.frame)}`).toSorted()
}

function changed(action: Action, frame: Frame): Frame {
  const tag = frame.tag ?? { vid: 0, pcp: 0 }
  switch (action.type) {
    case 'pushVlan':
      return { ...frame, tag }
    case 'popVlan':
      return { ...frame, tag: undefined }
    case 'setVlanVid':
      return { ...frame, tag: { ...tag, vid: action.vid } }
    case 'setVlanPcp':
      return { ...frame, tag: { ...tag, pcp: action.pcp } }
    case 'output':
    case 'other':
      throw new TypeError(`${action.type} does not change a frame`)
  }
}

function fits(match: Match, frame: Frame, metadata: number): boolean {
  const multicast = Math.floor(frame.ethDst / 2 ** 40) % 2 === 1
  const values = { ...frame, metadata, multicast, vlanVid: frame.tag?.vid, vlanPcp: frame.tag?.pcp }
  return Object.entries(match).every(([field, wanted]) => values[field as keyof typeof values] === wanted)
}

/** The entries of a switch that had `entries` and has done what `message` says. */
export function after(entries: readonly FlowEntry[], message: Message): FlowEntry[] {
  if (message.type !== 'flowAdd' && message.type !== 'flowDelete') throw new TypeError(message.type)
  const others = entries.filter(entry => entryKey(entry) !== entryKey(message))
  return message.type === 'flowAdd' ? [...others, message] : others
}
