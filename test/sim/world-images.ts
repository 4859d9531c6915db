/** Simulated image workers: the port `ImageWorker`, as `node/image` keeps it, over RAM of a few pages of text. */
import { hash } from 'node:crypto'
import { DiapauseError } from '../../node/errors.ts'
import type {
  Capture,
  FrameLog,
  ImageManifest,
  ImageWorker,
  PageRanges,
  Restore,
  StreamManifest
} from '../../node/ports.ts'
import { spareColumns } from '../../node/image/durability.ts'
import { toleratedLosses } from '../../node/image/stream-choice.ts'
import { allBut } from '../../node/shards/all-but.ts'
import { PATIENCE_MS } from '../../node/shards/uploads.ts'
import { toPacket } from '../../node/switch/ethernet.ts'
import { framesIn } from './world-bank.ts'
import type { PeerId } from '../../protocols/core.ts'
import { assemble, type Book, type CutFact } from './world-book.ts'
import type { Life } from './world-host.ts'
import type { CutStream, IncomingStream, Inlet, SimMachine } from './world-machine.ts'
import { SimNeighbour } from './world-neighbours.ts'
import { DURABILITY, SHAPE, type SimShards } from './world-shards.ts'

/** A manifest with the place of every page, which real images keep in a stream. */
export interface SimManifest extends ImageManifest {
  readonly slots: readonly string[]
}

export function encodeSimManifest(manifest: ImageManifest) {
  const text = JSON.stringify(manifest)
  const name = hash('sha256', text)
  return { hash: name, objects: [{ hash: name, bytes: Buffer.from(text) }] }
}

export const decodeSimManifest = (bytes: Uint8Array): SimManifest =>
  JSON.parse(Buffer.from(bytes).toString()) as SimManifest

/** Page → the stream that has it, and what it says. */
type Table = readonly { readonly stream: string; readonly text: string }[]

interface Candidate {
  readonly epoch: number
  table: Table
  manifest: StreamManifest | undefined
  /** The whole, once it is captured. */
  image: SimManifest | undefined
  readonly leans: readonly StreamManifest[]
}

interface CaptureOptions {
  readonly generation: number
  readonly epoch: number
  readonly socketPath: string
  readonly holders: readonly PeerId[]
  readonly ramPath?: string
}

export class SimWorker implements ImageWorker {
  readonly #group: string
  readonly #vm: string
  readonly #life: Life
  readonly #book: Book
  readonly #shards: SimShards
  #committed: Table = []
  readonly #streams = new Map<string, StreamManifest>()
  #candidate: Candidate | undefined
  #capture: SimCapture | undefined
  /** Pages that a void capture was told of. */
  readonly due = new Set<number>()
  readonly neighbour: SimNeighbour
  #closed = false

  constructor(group: string, vm: string, world: { life: Life; book: Book; shards: SimShards }) {
    this.neighbour = new SimNeighbour(group, world.life)
    this.#group = group
    this.#vm = vm
    this.#life = world.life
    this.#book = world.book
    this.#shards = world.shards
  }

  async capture(options: CaptureOptions): Promise<Capture> {
    await this.#life.wait(0.5, 'capture')
    if (this.#closed) throw new DiapauseError('IMAGE_WORKER', 'the image worker has ended')
    if (this.#capture !== undefined) throw new DiapauseError('IMAGE_BUSY', 'a capture is under way')
    if (this.#candidate !== undefined)
      throw new DiapauseError('IMAGE_EPOCH_OPEN', `epoch ${this.#candidate.epoch} is neither committed nor aborted`)
    const { epoch, holders } = options
    const tolerated = toleratedLosses(holders, SHAPE.m, holders)
    const leans = this.neighbour.leans(epoch, each => toleratedLosses(each.holders, each.m, holders) >= tolerated)
    const candidate: Candidate = { epoch, table: this.#committed, manifest: undefined, image: undefined, leans }
    this.#candidate = candidate
    const stream = `${this.#group}/${this.#vm}/${options.generation}/${options.epoch}`
    const machine = options.ramPath === undefined ? undefined : this.#life.paths.get(options.ramPath)
    const capture = new SimCapture({
      ...options,
      stream,
      machine: machine as SimMachine | undefined,
      life: this.#life,
      shards: this.#shards,
      due: this.due,
      finished: (pages, fact, frames, grids) =>
        this.#finish(options, candidate, { stream, pages, fact, frames, grids }),
      ended: whole => {
        if (this.#capture === capture) this.#capture = undefined
        if (!whole && this.#candidate === candidate) this.#candidate = undefined
      }
    })
    this.#capture = capture
    return capture
  }

  #finish(
    { generation, epoch, holders }: CaptureOptions,
    candidate: Candidate,
    made: { stream: string; pages: Map<number, string>; fact: CutFact; frames: readonly Uint8Array[]; grids: number }
  ): SimManifest {
    const { stream, pages, fact, frames, grids } = made
    const count = Math.max(this.#committed.length, ...[...pages.keys()].map(page => page + 1))
    const own = new Map<number, string>()
    candidate.table = Array.from({ length: count }, (_, page) => {
      const text = pages.get(page)
      const before = this.#committed[page]
      const same = before !== undefined && (text === undefined || text === before.text)
      if (same && this.#safety(before.stream, holders) >= toleratedLosses(holders, SHAPE.m, holders)) return before
      own.set(page, text ?? before?.text ?? '')
      return { stream, text: own.get(page) as string }
    })
    this.#book.contents.set(stream, { fact, pages: own, frames })
    const places = Array.from({ length: grids }, () => ({ symbolBytes: 8, hashes: new Uint8Array() }))
    const manifest: StreamManifest = { stream, ...SHAPE, holders, dataBytes: 1, grids: places }
    candidate.manifest = manifest
    const slots = candidate.table.map(page => page.stream)
    const older = [...new Set(slots)].filter(name => name !== stream).map(name => this.#streams.get(name))
    const foreign = candidate.leans.filter(({ stream: name }) => !slots.includes(name))
    const part = { offset: 0, length: 0 }
    candidate.image = {
      group: this.#group,
      vm: this.#vm,
      generation,
      epoch,
      memoryMiB: 16,
      accel: 'tcg',
      streams: [...(older as StreamManifest[]), ...foreign, manifest],
      machine: part,
      index: part,
      frames: part,
      stats: {
        pages: count,
        pagesNonZero: count,
        pagesChanged: own.size,
        bytesRaw: 0,
        bytesData: 0,
        bytesStored: 0,
        inFlightFrames: frames.length
      },
      slots
    }
    return candidate.image
  }

  /** How many more losses a stream bears, as a stream that is weaker than the new one is written again. */
  #safety(stream: string, alive: readonly PeerId[]): number {
    const manifest = this.#streams.get(stream)
    return manifest === undefined ? -1 : toleratedLosses(manifest.holders, manifest.m, alive)
  }

  commit(epoch: number): void {
    const candidate = this.#candidate
    if (candidate?.epoch !== epoch || candidate.manifest === undefined || candidate.image === undefined) return
    this.#committed = candidate.table
    this.neighbour.committed(candidate.image, candidate.leans)
    this.#streams.set(candidate.manifest.stream, candidate.manifest)
    this.#candidate = undefined
    this.due.clear()
  }

  abort(epoch: number): void {
    if (this.#candidate?.epoch !== epoch) return
    void this.#capture?.cancel()
    this.#candidate = undefined
  }

  async restore(manifest: ImageManifest): Promise<Restore> {
    await this.#shards.read(manifest.streams)
    const { slots, streams } = manifest as SimManifest
    const last = streams.at(-1)?.stream ?? ''
    const image = assemble(this.#book, last, slots)
    if (image === undefined) throw new DiapauseError('IMAGE_INVALID', `the image of ${last} is not whole`)
    let cancelled = false
    return {
      frames: packetsOf(image.frames),
      serve: async socketPath => {
        const inlet = this.#life.paths.get(socketPath) as Inlet<IncomingStream>
        const served = Promise.withResolvers<void>()
        inlet.offer({ pages: image.pages, complete: served.promise })
        served.promise.catch(() => {})
        try {
          await this.#life.wait(this.#life.host.kernel.between(2, 60), 'pages')
          await this.#shards.read(streams)
          if (cancelled || this.#closed) throw new DiapauseError('IMAGE_CANCELLED', 'the restore was cancelled')
        } catch (error) {
          served.reject(error)
          throw error
        }
        for (const stream of streams) this.#streams.set(stream.stream, stream)
        const own = `${this.#group}/${this.#vm}/`
        this.neighbour.committed(
          manifest,
          streams.filter(({ stream }) => !stream.startsWith(own))
        )
        this.#committed = image.pages.map((text, page) => ({ stream: slots[page] as string, text }))
        served.resolve()
        return { pagesFaulted: 1, pagesPushed: image.pages.length - 1 }
      },
      cancel: async () => {
        cancelled = true
      },
      disks: [],
      closeDisks: async () => {}
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    this.neighbour.leave()
    await this.#capture?.cancel()
  }
}

interface CaptureWorld extends CaptureOptions {
  readonly stream: string
  readonly machine: SimMachine | undefined
  readonly life: Life
  readonly shards: SimShards
  readonly due: Set<number>
  finished(pages: Map<number, string>, fact: CutFact, frames: readonly Uint8Array[], grids: number): SimManifest
  ended(whole: boolean): void
}

class SimCapture implements Capture, Inlet<CutStream> {
  readonly #world: CaptureWorld
  readonly #pages = new Map<number, string>()
  readonly #cut = Promise.withResolvers<CutStream>()
  /** Pages that void captures before this one were told of. */
  readonly #owed: number[]
  #grids = 0
  #cancelled = false
  #hurried = false
  #rounds: Promise<unknown> = Promise.resolve()

  constructor(world: CaptureWorld) {
    this.#world = world
    this.#owed = [...world.due]
    world.life.paths.set(world.socketPath, this)
    this.#cut.promise.catch(() => {})
  }

  offer(stream: CutStream): void {
    this.#cut.resolve(stream)
  }

  copy(pages: PageRanges): Promise<void> {
    const round = this.#copy(this.#note(pages))
    this.#rounds = Promise.allSettled([this.#rounds, round])
    return round
  }

  /** Mostly quick, now and then with much to copy. */
  async #copy(told: readonly number[]): Promise<void> {
    const { life } = this.#world
    for (let left = life.host.kernel.pick([1, 1, 1, 40]); left > 0 && !this.#hurried; left--) {
      await life.wait(0.3, 'copies')
    }
    if (this.#hurried) this.#owed.push(...told)
    else this.#read(told)
  }

  async hurry(): Promise<number> {
    this.#hurried = true
    await this.#rounds
    return this.#owed.length
  }

  async progress(): Promise<number> {
    return this.#pages.size + this.#grids
  }

  async copyLast(pages: PageRanges): Promise<void> {
    this.#read(this.#note(pages))
  }

  async shipped(): Promise<void> {
    await this.#put()
  }

  async finish(log: FrameLog): Promise<ImageManifest> {
    const { fact, pages } = await this.#cut.promise
    const frames: Uint8Array[] = []
    for await (const piece of log.pieces()) {
      for (const frame of framesIn(piece)) frames.push(frame.slice())
    }
    this.#unlessCancelled()
    pages?.forEach((text, page) => this.#pages.set(page, text))
    await this.#put()
    this.#unlessCancelled()
    this.#world.ended(true)
    return this.#world.finished(this.#pages, fact, frames, this.#grids)
  }

  async cancel(): Promise<void> {
    if (this.#cancelled) return
    this.#cancelled = true
    this.#cut.reject(cancelled())
    this.#world.ended(false)
  }

  /** What a capture was told of is due until an epoch is committed. */
  #note(ranges: PageRanges): number[] {
    const told = [...ranges].filter((_, i) => i % 2 === 0)
    for (const page of told) this.#world.due.add(page)
    return [...this.#owed.splice(0), ...told]
  }

  #read(pages: readonly number[]): void {
    this.#unlessCancelled()
    for (const page of pages) this.#pages.set(page, (this.#world.machine as SimMachine).page(page))
  }

  async #put(): Promise<void> {
    const { shards, stream, holders, life } = this.#world
    const grid = this.#grids++
    const spare = spareColumns(holders, SHAPE.m, DURABILITY)
    const puts = holders.map((_, column) =>
      shards.putColumn({ stream, holders, spare }, grid, column, new Uint8Array())
    )
    await allBut(spare, puts, life.clock, PATIENCE_MS)
  }

  #unlessCancelled(): void {
    if (this.#cancelled) throw cancelled()
  }
}

async function* packetsOf(frames: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  for (const frame of frames) yield toPacket(frame)
}

const cancelled = (): DiapauseError => new DiapauseError('IMAGE_CANCELLED', 'the capture was cancelled')
