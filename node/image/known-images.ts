/**
 * The images whose streams a VM's thread may read: the one that is restored, and the one that the next epoch is a difference
 * to. The thread knows streams without the hashes of their symbols, which only the main thread needs: here they are put
 * together.
 */
import { DiapauseError } from '../errors.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { ImageManifest, StoredElsewhere, StreamId, StreamManifest } from '../ports.ts'
import type { StreamFacts } from './page-table.ts'

/** An image as the thread knows it. */
export type ImageOutline = Omit<ImageManifest, 'streams'> & { readonly streams: readonly StreamFacts[] }

/** What a capture has made: its own stream, and the older ones that the image leans on, all of the last committed image or a neighbour's. */
export type CapturedImage = Omit<ImageManifest, 'streams'> & {
  readonly older: readonly StreamId[]
  readonly own: StreamManifest
}

export class KnownImages {
  #restoring: { readonly number: number; readonly image: ImageManifest } | undefined
  #captured: ImageManifest | undefined
  #committed: ImageManifest | undefined
  /** Streams that a first epoch leans on. */
  #bases: readonly StreamManifest[] = []
  /** What the last capture writes. */
  #own: { readonly epoch: number; readonly stream: StreamId } | undefined
  /** Streams of other VMs that the open epoch may lean on. */
  #neighbours: readonly StreamManifest[] = []

  /** The last committed image, or the last restored one. */
  get last(): ImageManifest | undefined {
    return this.#committed
  }

  /** A capture, which may lean on these streams besides. */
  begun(own: { readonly epoch: number; readonly stream: StreamId }, neighbours: readonly StreamManifest[]): void {
    this.#own = own
    this.#neighbours = neighbours
  }

  /** What was written for that epoch: nobody wants it. */
  voided(epoch: number): StreamId[] {
    return this.#own?.epoch === epoch ? [this.#own.stream] : []
  }

  /** What is known of where streams are that a capture may lean on: of the committed image, bases, and these neighbours'. */
  stored(
    neighbours: readonly StreamManifest[],
    storedAt: (stream: StreamId) => readonly PeerId[] | undefined = () => undefined
  ): StoredElsewhere {
    const names = [...(this.#committed?.streams ?? []), ...this.#bases, ...neighbours].map(({ stream }) => stream)
    return new Map(
      names.flatMap(name => {
        const holders = storedAt(name)
        return holders === undefined ? [] : [[name, holders]]
      })
    )
  }

  useBases(bases: readonly StreamManifest[]): void {
    this.#bases = bases
  }

  restoring(number: number, image: ImageManifest): ImageOutline {
    this.#restoring = { number, image }
    return { ...image, streams: image.streams.map(factsOf) }
  }

  restored(number: number): void {
    if (this.#restoring?.number === number) this.#committed = this.#restoring.image
  }

  captured(image: CapturedImage): ImageManifest {
    this.#captured = wholeImage(image, this.#leanedOn)
    return this.#captured
  }

  committed(epoch: number): void {
    if (this.#captured?.epoch === epoch) this.#committed = this.#captured
    if (this.#own?.epoch === epoch) this.#own = undefined
  }

  /** IMAGE_CANCELLED where another restore has taken its place. */
  streamOfRestore(number: number, stream: StreamId): StreamManifest {
    if (this.#restoring?.number === number) return streamIn(this.#restoring.image, stream)
    throw new DiapauseError('IMAGE_CANCELLED', 'the restore was cancelled')
  }

  /** A stream that the restored image leans on, or an epoch that was committed since. */
  streamForDisks(number: number, stream: StreamId): StreamManifest {
    const restored = this.#restoring?.number === number ? this.#restoring.image.streams : []
    return restored.find(each => each.stream === stream) ?? this.streamOfCommitted(stream)
  }

  streamOfCommitted(stream: StreamId): StreamManifest {
    return streamIn(this.#leanedOn, stream)
  }

  get #leanedOn(): Pick<ImageManifest, 'streams'> {
    return { streams: [...(this.#committed?.streams ?? []), ...this.#bases, ...this.#neighbours] }
  }
}

/** A stream without the hashes of its symbols. */
export function factsOf(stream: StreamManifest): StreamFacts {
  const { grids: _, ...facts } = stream
  return facts
}

/** `before`: what it leans on: the image that it is a difference to, bases, neighbours. */
export function wholeImage(
  { older, own, ...rest }: CapturedImage,
  before: Pick<ImageManifest, 'streams'> | undefined
): ImageManifest {
  return { ...rest, streams: [...older.map(stream => streamIn(before, stream)), own] }
}

function streamIn(image: Pick<ImageManifest, 'streams'> | undefined, stream: StreamId): StreamManifest {
  const found = image?.streams.find(each => each.stream === stream)
  if (!found) throw new DiapauseError('IMAGE_INVALID', `the image has no stream ${stream}; restore another epoch`)
  return found
}
