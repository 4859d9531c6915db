/** With whom a VM has spoken lately: stands in its image's manifest, so that whoever restores the group knows who waits for whom. */
import { z } from 'zod'

/** With so many VMs, those it spoke with most, on so many networks. A guess: 64 VMs of a group rarely all speak with each. */
export const MAX_TALKS = 32

/**
 * What passed between a VM and another one of its group on one network, by the switch of its host. Frames to all are not counted.
 * Of older epochs half as much counts as of the next newer one.
 */
export interface Talk {
  /** The other. */
  readonly vm: string
  readonly network: string
  readonly sent: number
  readonly sentBytes: number
  readonly heard: number
  readonly heardBytes: number
  /** How often something came back soon after it had sent, and after how many milliseconds, on average. */
  readonly answers: number
  readonly answerMs: number
}

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)

export const talkSchema = z.strictObject({
  vm: z.string().min(1).max(100),
  network: z.string().min(1).max(100),
  sent: count,
  sentBytes: count,
  heard: count,
  heardBytes: count,
  answers: count,
  answerMs: z.number().min(0).max(3_600_000)
})

export const talksSchema = z.array(talkSchema).max(MAX_TALKS)

/** Fields in a fixed order. */
export const talkOf = ({ vm, network, sent, sentBytes, heard, heardBytes, answers, answerMs }: Talk): Talk => ({
  vm,
  network,
  sent,
  sentBytes,
  heard,
  heardBytes,
  answers,
  answerMs
})
