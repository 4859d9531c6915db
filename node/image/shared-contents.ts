/**
 * The VMs of each group on this host, joined in the main thread: what the thread of one has committed is told to those of the
 * others (`content-board.ts`), and each capture is told what it may lean on (`neighbours.ts`).
 */
import type { ImageManifest, StreamManifest } from '../ports.ts'
import type { Publication } from './content-board.ts'
import type { LeanOn, NeighbourNews } from './neighbours.ts'
import type { PageStream } from './page-table.ts'

/**
 * That a VM looks at: a page that changes and is found nowhere costs 130 ns with one, 0.4 µs with 4 and 4 µs with 16 of 256 MiB each
 * (measured; to be packed and coded costs it 20). A guess.
 */
const MAX_NEIGHBOURS = 16

export interface MemberOptions {
  readonly group: string
  readonly vm: string
  /** Of this VM, the image of the last committed epoch as far as this host knows. */
  committed(): ImageManifest | undefined
  /** To its thread. */
  tell(news: NeighbourNews): void
}

/** What a capture leans on: what the thread must know of it, and the manifests of all these streams. */
export interface Leaning {
  readonly leanOn: LeanOn | undefined
  readonly streams: readonly StreamManifest[]
}

export interface Member {
  /** Whether there is anyone to publish for. */
  readonly hasNeighbours: boolean
  /** From its thread: its board is written. */
  published(publication: Publication): void
  /** As it is at this moment: for a capture that begins. */
  leaning(): Leaning
  /** Its thread is gone. Safe to call again. */
  leave(): void
}

/** A member as the others have it. */
interface Party extends MemberOptions {
  readonly number: number
  /** The last one, whole. */
  publication: Publication | undefined
  /** Its neighbours: those that it is told of. */
  readonly neighbours: Set<Party>
}

export class SharedContents {
  readonly #groups = new Map<string, Set<Party>>()
  #numbers = 0

  join(options: MemberOptions): Member {
    const { group } = options
    const party: Party = { ...options, number: ++this.#numbers, publication: undefined, neighbours: new Set() }
    const others = this.#groups.get(group) ?? new Set()
    this.#groups.set(group, others)
    for (const other of others) if (other.publication !== undefined) tellOf(other, party, other.publication)
    others.add(party)
    return {
      get hasNeighbours() {
        return others.size > 1
      },
      published: publication => {
        party.publication = wholeOf(party.publication, publication)
        for (const other of others) if (other !== party) tellOf(party, other, publication)
      },
      leaning: () => leaningOf(party),
      leave: () => {
        others.delete(party)
        if (others.size === 0 && this.#groups.get(group) === others) this.#groups.delete(group)
        for (const other of others) {
          if (other.neighbours.delete(party)) other.tell({ neighbour: party.number, publication: undefined })
        }
      }
    }
  }
}

function tellOf(party: Party, to: Party, news: Publication): void {
  const knows = to.neighbours.has(party)
  if (!knows && to.neighbours.size >= MAX_NEIGHBOURS) return
  to.neighbours.add(party)
  to.tell({ neighbour: party.number, publication: knows ? news : party.publication })
}

function wholeOf(before: Publication | undefined, publication: Publication): Publication {
  const streams = new Map<number, PageStream | undefined>(publication.whole ? [] : before?.streams)
  for (const [slot, stream] of publication.streams) streams.set(slot, stream)
  return { ...publication, whole: true, streams: [...streams].filter(([, stream]) => stream !== undefined) }
}

/**
 * Only where both have the same epoch: whose streams are kept is said by the group's last committed epoch alone. An image that was
 * read from elsewhere than shards has streams without grids, which nobody else can read.
 */
function leaningOf({ committed, neighbours }: Party): Leaning {
  const own = committed()
  if (own === undefined) return { leanOn: undefined, streams: [] }
  const { generation, epoch } = own
  const found = [...neighbours].flatMap(({ number, vm, committed: its }) => {
    const image = its()
    const stored = image?.streams.every(({ grids }) => grids.length > 0) === true
    return stored && image.generation === generation && image.epoch === epoch ? [{ number, vm, image }] : []
  })
  return {
    leanOn: {
      generation,
      epoch,
      neighbours: found.map(({ number, vm, image }) => ({
        neighbour: number,
        vm,
        streams: image.streams.map(({ stream }) => stream)
      }))
    },
    streams: found.flatMap(({ image }) => image.streams)
  }
}
