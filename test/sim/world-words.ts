/** Messages in words, for the list of events. */
import { Packr } from 'msgpackr'
import type { Channel } from '../../node/ports.ts'
import { decodeBatch } from '../../protocols/frames/records.ts'
import { frameId } from './world-bank.ts'

const packr = new Packr({ useRecords: false })
const NAME_AT = 10

export function describeMessage(channel: Channel, message: Uint8Array): string {
  if (channel === 'frames') {
    const { group, generation, records } = decodeBatch(message)
    const said = records.map(({ source, destination, colour, sequence, packet }) =>
      packet === undefined
        ? `turn ${source}>${destination} to ${colour} after ${sequence}`
        : `frame ${frameId(packet.subarray(4))} ${source}>${destination} ${sequence} of colour ${colour}`
    )
    return `${group}/${generation} ${said.join(', ')}`
  }
  const end = NAME_AT + (message[NAME_AT - 1] ?? 0)
  const protocol = Buffer.from(message.subarray(NAME_AT, end)).toString('latin1')
  return describeBody(protocol, packr.unpack(message.subarray(end)))
}

/** A control message, its values by their sizes. */
export function describeBody(protocol: string, body: unknown): string {
  const told = JSON.stringify(body, (_, value: unknown) =>
    value instanceof Uint8Array ? `${value.length} bytes` : value
  )
  return `${protocol} ${told.length > 200 ? `${told.slice(0, 200)}…` : told}`
}
