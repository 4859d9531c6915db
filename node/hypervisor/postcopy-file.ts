/**
 * A post-copy migration as a restore sends it (`postcopy-stream.ts`), turned into the migration stream of a file
 * (`migration-writer.ts`): its commands are left out, devices come behind the pages instead of before them and say that the
 * VM runs, and pages pass as they are. So whatever can restore a VM can export it. Pure.
 */
import { DiapauseError } from '../errors.ts'
import { runningDevices } from './device-sections.ts'
import { MAGIC, PAGE, PAGE_BYTES, SECTION, STREAM_LIMITS } from './migration-format.ts'
import { migrationTail } from './migration-writer.ts'

const PACKAGED = 7
/** Before and behind the devices in the package: listen, and run. */
const PACKAGE_COMMAND_BYTES = 5
const RAM_HEADER_BYTES = 17

type State = 'magic' | 'section' | 'blocks' | 'records' | 'footer' | 'package' | 'done'

/**
 * `push` every chunk, and write what it returns; `end` when the source has ended. MIGRATION_STREAM_INVALID for what our own
 * source does not send, MIGRATION_STREAM_TRUNCATED where it ended too soon.
 */
export class PostcopyFile {
  #rest: Uint8Array = new Uint8Array(0)
  #state: State = 'magic'
  #configured = false
  #blockBytesLeft = 0
  #ramId = 0
  #package: Uint8Array = new Uint8Array(0)
  #packageBytes = 0
  /** Of the chunk at hand: what is to be written. */
  #out: Uint8Array[] = []

  /** Views of `chunk` and of what was kept of those before. */
  push(chunk: Uint8Array): Uint8Array[] {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#out = []
    let at = 0
    /** Where what passes begins that has not been put out yet. */
    let from = 0
    while (at < bytes.length) {
      const { length, passes } = this.#item(bytes, view, at)
      if (length === 0) break
      if (!passes) {
        if (at > from) this.#out.push(bytes.subarray(from, at))
        from = at + length
      }
      at += length
    }
    if (at > from) this.#out.push(bytes.subarray(from, at))
    this.#rest = bytes.slice(at)
    return this.#out
  }

  /** The last page has come: the source waits to hear that all is well. */
  get complete(): boolean {
    return this.#state === 'done'
  }

  /** What is still to be written. */
  end(): Uint8Array {
    if (this.#state !== 'done' || this.#packageBytes < this.#package.length) {
      throw new DiapauseError('MIGRATION_STREAM_TRUNCATED', 'the image ended before its last page')
    }
    const devices = this.#package.subarray(PACKAGE_COMMAND_BYTES, -PACKAGE_COMMAND_BYTES)
    return migrationTail(this.#ramId, runningDevices(devices))
  }

  /** The item at `at`: its length, 0 where it is not all there yet, and whether it belongs to the file. */
  #item(bytes: Uint8Array, view: DataView, at: number): { length: number; passes: boolean } {
    const left = bytes.length - at
    switch (this.#state) {
      case 'magic':
        if (left >= 8 && view.getUint32(at) !== MAGIC) throw invalid('it does not begin as one')
        if (left >= 8) this.#state = 'section'
        return { length: left < 8 ? 0 : 8, passes: true }
      case 'section':
        return this.#section(view, at, left)
      case 'blocks':
        return { length: this.#block(view, at, left), passes: true }
      case 'records':
        return { length: this.#record(view, at, left), passes: true }
      case 'footer':
        if (left >= 5) this.#state = 'section'
        return { length: left < 5 ? 0 : 5, passes: true }
      case 'package':
        return { length: this.#devices(bytes.subarray(at)), passes: false }
      case 'done':
        return { length: left, passes: false }
    }
  }

  #section(view: DataView, at: number, left: number): { length: number; passes: boolean } {
    const type = view.getUint8(at)
    const taken = (length: number, passes: boolean) => ({ length: left < length ? 0 : length, passes })
    if (left < 5) return taken(5, true)
    if (type === SECTION.configuration && !this.#configured) {
      const length = 5 + view.getUint32(at + 1)
      if (length > STREAM_LIMITS.configBytes + 5) throw invalid(`a configuration of ${length} bytes`)
      this.#configured = left >= length
      return taken(length, true)
    }
    if (type === SECTION.start) {
      if (left >= RAM_HEADER_BYTES) [this.#ramId, this.#state] = [view.getUint32(at + 1), 'records']
      return taken(RAM_HEADER_BYTES, true)
    }
    if (type === SECTION.part) {
      this.#state = 'records'
      return taken(5, true)
    }
    if (type === SECTION.end) {
      this.#state = 'done'
      return taken(5, false)
    }
    if (type !== SECTION.command) throw invalid(`section type ${type}`)
    const length = 5 + view.getUint16(at + 3)
    if (view.getUint16(at + 1) === PACKAGED && left >= length) this.#openPackage(view.getUint32(at + 5))
    return taken(length, false)
  }

  #openPackage(bytes: number): void {
    const fits = bytes > 2 * PACKAGE_COMMAND_BYTES && bytes <= STREAM_LIMITS.deviceBytes + 2 * PACKAGE_COMMAND_BYTES
    if (this.#package.length > 0 || !fits) throw invalid(`a package of ${bytes} bytes`)
    this.#package = new Uint8Array(bytes)
    this.#state = 'package'
  }

  #devices(bytes: Uint8Array): number {
    const part = bytes.subarray(0, this.#package.length - this.#packageBytes)
    this.#package.set(part, this.#packageBytes)
    this.#packageBytes += part.length
    if (this.#packageBytes === this.#package.length) this.#state = 'section'
    return part.length
  }

  #block(view: DataView, at: number, left: number): number {
    const length = 9 + view.getUint8(at)
    if (left < length) return 0
    this.#blockBytesLeft -= Number(view.getBigUint64(at + length - 8))
    if (this.#blockBytesLeft <= 0) this.#state = 'records'
    return length
  }

  #record(view: DataView, at: number, left: number): number {
    if (left < 8) return 0
    const flags = view.getUint32(at + 4) & 0xfff
    if (flags === PAGE.eos) {
      this.#state = 'footer'
      return 8
    }
    if (flags === PAGE.memSize) {
      this.#blockBytesLeft = Number(view.getBigUint64(at)) - PAGE.memSize
      this.#state = 'blocks'
      return 8
    }
    const kind = flags & ~PAGE.sameBlock
    if (kind !== PAGE.zero && kind !== PAGE.data) throw invalid(`a page with flags 0x${flags.toString(16)}`)
    let length = 8 + (kind === PAGE.zero ? 1 : PAGE_BYTES)
    if ((flags & PAGE.sameBlock) === 0) {
      if (left < 9) return 0
      length += 1 + view.getUint8(at + 8)
    }
    return left < length ? 0 : length
  }
}

const invalid = (what: string) =>
  new DiapauseError('MIGRATION_STREAM_INVALID', `the image was not sent as a post-copy migration: ${what}`)
