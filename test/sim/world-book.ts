/**
 * The world's book: what really happened to each frame, and what each image should hold. No peer can read it; invariants
 * are judged by it.
 */
import type { PeerId } from '../../protocols/core.ts'
import { decodeBatch } from '../../protocols/frames/records.ts'
import type { BankImage } from './world-bank.ts'
import { frameId } from './world-bank.ts'
import type { Life } from './world-host.ts'

/** One VM of one generation, from its start to its end. */
export class Run {
  readonly group: string
  readonly vm: string
  readonly generation: number
  readonly life: Life
  /** All frames it has sent. */
  readonly sent: SentFrame[] = []
  /** Ids of the frames it has taken, in order. */
  readonly taken: number[] = []
  /** Ids of those that came with its image. */
  readonly injected: ReadonlySet<number>
  executing = false
  /** When it last began to. */
  sinceMs = 0

  constructor(of: Pick<Run, 'group' | 'vm' | 'generation' | 'life' | 'injected'>) {
    this.group = of.group
    this.vm = of.vm
    this.generation = of.generation
    this.life = of.life
    this.injected = of.injected
  }
}

export interface SentFrame {
  readonly id: number
  readonly from: Run
  readonly to: string
  /** Its place in `from.sent`. */
  readonly index: number
  /** Why it will never come, where it will not. */
  lost: string | undefined
  /** The process of its receiver's peer that has it, or had. */
  cameTo: Life | undefined
}

/** One VM at one cut. */
export interface CutFact {
  readonly run: Run
  readonly sent: number
  readonly taken: number
  /** RAM as it was. */
  readonly pages: readonly string[]
  /** Frames given to the VM that it may not have taken: only they may be in its image although it has. */
  readonly recent: ReadonlySet<number>
}

/** What the shards of a stream say. */
export interface StreamContent {
  readonly fact: CutFact
  readonly pages: ReadonlyMap<number, string>
  readonly frames: readonly Uint8Array[]
}

export class Book {
  readonly frames: SentFrame[] = []
  /** By stream. */
  readonly contents = new Map<string, StreamContent>()
  /** VM → who spoke last for it, in which generation. */
  readonly #spoke = new Map<string, { generation: number; peer: PeerId }>()
  readonly runs: Run[] = []

  /** A VM has sent a frame: it gets its id. */
  sent(from: Run, to: string): number {
    const frame: SentFrame = {
      id: this.frames.length,
      from,
      to,
      index: from.sent.length,
      lost: undefined,
      cameTo: undefined
    }
    this.frames.push(frame)
    from.sent.push(frame)
    return frame.id
  }

  /** The frames of a message of the channel `frames` will not come. */
  lose(message: Uint8Array, why: string): void {
    for (const frame of this.#framesOf(message)) frame.lost ??= why
  }

  /** They have come to a peer: if its process ends before the VM takes them, they are gone with it. */
  come(life: Life, message: Uint8Array): void {
    for (const frame of this.#framesOf(message)) frame.cameTo = life
  }

  #framesOf(message: Uint8Array): SentFrame[] {
    return decodeBatch(message).records.flatMap(({ packet }) =>
      packet === undefined ? [] : (this.frames[frameId(packet.subarray(4))] ?? [])
    )
  }

  /** Who speaks for a VM, frame by frame: the result names a frame of one whose successor has spoken already. */
  spoken(peer: PeerId, group: string, generation: number, vm: string): string | undefined {
    const name = `${group}/${vm}`
    const last = this.#spoke.get(name)
    if (last === undefined || last.generation < generation) this.#spoke.set(name, { generation, peer })
    else if (last.generation > generation) {
      return `${peer} speaks for ${name} of generation ${generation}, and ${last.peer} has for ${last.generation}`
    } else if (last.peer !== peer) return `${peer} and ${last.peer} both speak for ${name} of generation ${generation}`
    return undefined
  }
}

/** An image put together from its streams: `slots` says where each page lies. */
export function assemble(book: Book, last: string, slots: readonly string[]): BankImage | undefined {
  const pages = slots.map((stream, page) => book.contents.get(stream)?.pages.get(page))
  const frames = book.contents.get(last)?.frames
  if (frames === undefined || pages.includes(undefined)) return undefined
  return { pages: pages as string[], frames }
}
