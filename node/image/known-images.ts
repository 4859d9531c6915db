/** The images whose streams a VM's thread may read: the one that is restored, and the one that the next epoch is a difference to. */
import { DiapauseError } from '../errors.ts'
import type { ImageManifest, StreamId, StreamManifest } from '../ports.ts'

export class KnownImages {
  #restoring: { readonly number: number; readonly image: ImageManifest } | undefined
  #captured: ImageManifest | undefined
  #committed: ImageManifest | undefined

  restoring(number: number, image: ImageManifest): void {
    this.#restoring = { number, image }
  }

  restored(number: number): void {
    if (this.#restoring?.number === number) this.#committed = this.#restoring.image
  }

  captured(image: ImageManifest): ImageManifest {
    this.#captured = image
    return image
  }

  committed(epoch: number): void {
    if (this.#captured?.epoch === epoch) this.#committed = this.#captured
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
    return streamIn(this.#committed, stream)
  }
}

function streamIn(image: ImageManifest | undefined, stream: StreamId): StreamManifest {
  const found = image?.streams.find(each => each.stream === stream)
  if (!found) throw new DiapauseError('IMAGE_INVALID', `the image has no stream ${stream}; restore another epoch`)
  return found
}
