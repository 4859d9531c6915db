/**
 * What QEMU is handed in a restore, seen on its way: stands between the image worker and QEMU's incoming socket, passes
 * everything on, sees how long each page takes that QEMU asks for, and puts the pages together as QEMU does. So the RAM that a VM
 * was given can be compared with an image's although the VM runs, and writes, from its first page on.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import {
  MAIN_BLOCK,
  PAGE_BYTES,
  PostcopyFile,
  ReturnPath,
  SnapshotParser
} from '../../node/hypervisor/migration-stream.ts'

/** faults: how long pages take that are asked for. ram: also what all pages are. */
export type Look = 'no' | 'faults' | 'ram'

export interface Delivered {
  /** SHA-256 of all of RAM; pages that never came are zeros, and counted. '': nobody looked. */
  readonly ramHash: string
  /** From QEMU's word that it lacks a page to that page, sorted. Pages that were on their way are not among them. */
  readonly faultMs: readonly number[]
  readonly missing: number
  /** Pages that came a second time. */
  readonly twice: number
}

export class DeliveredRam {
  /** Where the image worker is to connect in QEMU's stead. */
  readonly path: string
  readonly #ram: Buffer | undefined
  readonly #came: Uint8Array
  #twice = 0
  /** Page → when it was asked for. */
  readonly #asked = new Map<number, number>()
  readonly #faultMs: number[] = []

  private constructor(path: string, memoryMiB: number, look: Look) {
    this.path = path
    this.#ram = look === 'ram' ? Buffer.alloc(memoryMiB << 20) : undefined
    this.#came = new Uint8Array(memoryMiB * (2 ** 20 / PAGE_BYTES))
  }

  /** Connects to QEMU at `socketPath` when somebody connects to it. */
  static async between(socketPath: string, memoryMiB: number, look: Look): Promise<DeliveredRam> {
    const between = new DeliveredRam(`${socketPath}-b`, memoryMiB, look)
    await rm(between.path, { force: true })
    const server = createServer(source => {
      server.close()
      void between.#pass(source, connect(socketPath))
    })
    server.listen(between.path)
    await once(server, 'listening')
    return between
  }

  result(): Delivered {
    const missing = this.#came.reduce((sum, came) => sum + (came === 0 ? 1 : 0), 0)
    const ramHash = this.#ram === undefined ? '' : createHash('sha256').update(this.#ram).digest('hex')
    return { ramHash, faultMs: this.#faultMs.toSorted((a, b) => a - b), missing, twice: this.#twice }
  }

  async #pass(source: Socket, target: Socket): Promise<void> {
    for (const [one, other] of [
      [source, target],
      [target, source]
    ] as const) {
      one.on('error', () => other.destroy())
      one.on('close', () => other.destroy())
    }
    const requests = this.#requests()
    target.on('data', chunk => {
      requests.push(chunk)
      source.write(chunk)
    })
    const file = new PostcopyFile()
    const pages = this.#pages()
    try {
      for await (const chunk of source as AsyncIterable<Uint8Array>) {
        for (const part of file.push(chunk)) pages.push(part)
        if (!target.write(chunk)) await once(target, 'drain')
      }
    } catch {
      target.destroy() // whoever waits for the restore hears of it
    }
  }

  #requests(): ReturnPath {
    return new ReturnPath({
      pages: (block, offset, length) => {
        for (let page = offset / PAGE_BYTES; block === MAIN_BLOCK && page * PAGE_BYTES < offset + length; page++) {
          if (this.#came[page] === 0 && !this.#asked.has(page)) this.#asked.set(page, performance.now())
        }
      },
      shut: () => {},
      pong: () => {}
    })
  }

  #pages(): SnapshotParser {
    let names: readonly string[] = []
    return new SnapshotParser({
      blocks: blocks => void (names = blocks.map(({ name }) => name)),
      page: (block, offset, bytes) => {
        if (names[block] !== MAIN_BLOCK) return
        const page = offset / PAGE_BYTES
        if (this.#came[page] !== 0) this.#twice++
        this.#came[page] = 1
        const askedMs = this.#asked.get(page)
        if (askedMs !== undefined && this.#asked.delete(page)) this.#faultMs.push(performance.now() - askedMs)
        if (bytes) this.#ram?.set(bytes, offset)
      }
    })
  }
}
