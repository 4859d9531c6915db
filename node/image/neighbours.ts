/**
 * The other VMs of the group on this host, as the thread of one VM knows them: what they have committed, and how far a capture
 * may lean on it. It may lean on the streams of the group's last committed epoch and on no others, because those are what
 * every peer keeps (`planning/retention.ts`) until this capture is committed itself or void. So the main thread names, when a capture
 * begins, the neighbours whose committed image is of the same epoch as this VM's own, and the streams of those images; and
 * here is used what was published of that very epoch. A neighbour that is late, or has gone back to another image, or
 * is gone, is not leaned on; nothing waits for it. Pure but for the shared memory.
 */
import type { StreamId } from '../ports.ts'
import { ContentBoard, type EpochName, type Publication } from './content-board.ts'
import type { NeighbourContents } from './foreign-streams.ts'
import type { PageStream } from './page-table.ts'

/** What has become of a neighbour. Undefined: it is gone. */
export interface NeighbourNews {
  readonly neighbour: number
  readonly publication: Publication | undefined
}

/** What a capture may lean on, of the epoch that is its VM's own last committed one. */
export interface LeanOn extends EpochName {
  readonly neighbours: readonly {
    readonly neighbour: number
    readonly vm: string
    readonly streams: readonly StreamId[]
  }[]
}

interface Known {
  readonly publication: Publication
  readonly board: ContentBoard
  readonly index: Uint32Array
  readonly streams: Map<number, PageStream>
}

export class Neighbours {
  readonly #known = new Map<number, Known>()
  readonly #own: string

  constructor({ group, vm }: { readonly group: string; readonly vm: string }) {
    this.#own = prefixOf(group, vm)
  }

  hear({ neighbour, publication }: NeighbourNews): void {
    if (publication === undefined) {
      this.#known.delete(neighbour)
      return
    }
    const streams = publication.whole ? [] : (this.#known.get(neighbour)?.streams ?? [])
    const known = {
      publication,
      board: new ContentBoard(publication.board),
      index: new Uint32Array(publication.index),
      streams: new Map(streams)
    }
    for (const [slot, stream] of publication.streams) {
      if (stream === undefined) known.streams.delete(slot)
      else known.streams.set(slot, stream)
    }
    this.#known.set(neighbour, known)
  }

  /** For one capture. */
  contents({ neighbours, ...name }: LeanOn): NeighbourContents {
    const group = this.#own.slice(0, this.#own.indexOf('/'))
    const kept = new Set(
      neighbours.flatMap(({ vm, streams }) => streams.filter(stream => stream.startsWith(prefixOf(group, vm))))
    )
    const allowed = neighbours.map(({ neighbour, streams }) => ({ neighbour, streams: new Set(streams) }))
    return {
      find: (digest, usable) => {
        for (const { neighbour, streams } of allowed) {
          const known = this.#known.get(neighbour)
          if (known === undefined || !isOf(known.publication, name)) continue
          const place = known.board.find(digest, known.index, known.publication.version)
          const stream = place && known.streams.get(place.slot)
          if (stream !== undefined && streams.has(stream.manifest.stream) && usable(stream)) return place?.locator
        }
        return undefined
      },
      keeps: stream => kept.has(stream),
      isOwn: stream => stream.startsWith(this.#own)
    }
  }
}

const isOf = ({ generation, epoch }: EpochName, name: EpochName): boolean =>
  generation === name.generation && epoch === name.epoch

const prefixOf = (group: string, vm: string): string => `${group}/${vm}/`
