/**
 * Is a VM deaf to another one? Frames wait where a cut asks for it, so while an epoch is open. What comes to a peer that knows
 * there is none, for a VM that runs there, is taken at once; who is behind with the record, since its network is, has to learn
 * first. Looked at when a frame comes: senders repeat what is not answered.
 */
import { decodeBatch } from '../../protocols/frames/records.ts'
import type { SimPeer } from './cluster-peer.ts'
import type { Kernel } from './kernel.ts'
import type { Book, Run } from './world-book.ts'
import type { Life } from './world-host.ts'

export interface ChannelWorld {
  readonly kernel: Kernel
  readonly book: Book
  peerOf(life: Life | undefined): SimPeer | undefined
  /** The newest version of the group's record that was chosen. */
  newest(group: string): number | undefined
}

interface Deaf {
  /** Nothing was taken since, though it might. */
  sinceMs: number
  /** Of the group's record, as the peer knows it. */
  readonly version: number
}

export class Channels {
  readonly #world: ChannelWorld
  /** Receiving run → sending VM. */
  readonly #deaf = new Map<Run, Map<string, Deaf>>()

  constructor(world: ChannelWorld) {
    this.#world = world
  }

  /** The result names a VM that was deaf for longer than `mostMs`. */
  came(life: Life, message: Uint8Array, mostMs: number): string | undefined {
    const { group, generation, records } = decodeBatch(message)
    const { kernel, book } = this.#world
    const record = this.#world.peerOf(life)?.directory.get(group)
    for (const { source, destination, packet } of records) {
      const run = book.runs.findLast(each => each.life === life && each.vm === destination && each.group === group)
      if (packet === undefined || run?.generation !== generation) continue
      const senders = this.#deaf.get(run) ?? new Map<string, Deaf>()
      this.#deaf.set(run, senders)
      const isBehind = record?.generation !== generation || record.version !== this.#world.newest(group)
      const mayWait = !run.executing || life.host.stopped !== 'no' || isBehind
      const deaf = senders.get(source)
      if (mayWait || record.open !== null) senders.delete(source)
      else if (deaf?.version !== record.version) senders.set(source, { sinceMs: kernel.nowMs, version: record.version })
      else {
        const ms = kernel.nowMs - Math.max(deaf.sinceMs, run.sinceMs)
        if (ms > mostMs)
          return `${destination} at ${life.host.name} takes nothing of ${source} for ${ms} ms, no epoch open`
      }
    }
    return undefined
  }

  took(run: Run, id: number): void {
    const from = this.#world.book.frames[id]?.from.vm ?? ''
    this.#deaf.get(run)?.delete(from)
  }
}
