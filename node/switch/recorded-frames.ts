import type { FrameQueue } from '../../protocols/epoch/channel-queue.ts'
import { DiapauseError } from '../errors.ts'
import type { FrameLog } from '../ports.ts'

/** The in-flight frames of one cut, read piece by piece from where they are. */
export class RecordedFrames implements FrameLog {
  readonly frames: number
  readonly bytes: number
  readonly #queue: FrameQueue
  readonly #head: Uint8Array
  #wake: () => void = () => {}
  #failure: DiapauseError | undefined

  /** `head`: a piece before the frames, where it is not empty. */
  constructor(queue: FrameQueue, head: Uint8Array) {
    this.#queue = queue
    this.#head = head
    this.frames = queue.length
    this.bytes = head.length + queue.bytes
  }

  async *pieces(): AsyncGenerator<Uint8Array> {
    if (this.#head.length > 0) yield this.#head
    while (this.#queue.length > 0) {
      const atHand = new Promise<void>(resolve => {
        this.#wake = resolve
      })
      const piece = this.#queue.shiftMany()
      if (piece !== undefined) yield piece
      else if (this.#queue.length > 0) await atHand
    }
    if (this.#failure !== undefined) throw this.#failure
  }

  discard(): void {
    this.#failure ??= new DiapauseError('EPOCH_ABORTED', 'the in-flight frames were discarded with their epoch')
    this.#queue.clear()
    this.#wake()
  }

  /** The next piece is at hand again. */
  ready(): void {
    this.#wake()
  }

  /** Some of them went with the disk they were on. */
  lost(): void {
    this.#failure ??= new DiapauseError(
      'RECORDING_LOST',
      'in-flight frames could not be read back from disk, so that the image would not be whole: abort the epoch'
    )
    this.#wake()
  }
}
