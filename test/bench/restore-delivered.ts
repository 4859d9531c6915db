/**
 * What QEMU is handed in a restore, seen on its way: stands between the image worker and QEMU's incoming socket, passes
 * everything on, and puts the pages together as QEMU does. So the RAM that a VM was given can be compared with an image's
 * although the VM runs, and writes, from its first page on.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { MAIN_BLOCK, PAGE_BYTES, PostcopyFile, SnapshotParser } from '../../node/hypervisor/migration-stream.ts'

export interface Delivered {
  /** SHA-256 of all of RAM; pages that never came are zeros, and counted. */
  readonly ramHash: string
  readonly missing: number
  /** Pages that came a second time. */
  readonly twice: number
}

export class DeliveredRam {
  /** Where the image worker is to connect in QEMU's stead. */
  readonly path: string
  readonly #ram: Buffer
  readonly #came: Uint8Array
  #twice = 0

  private constructor(path: string, memoryMiB: number) {
    this.path = path
    this.#ram = Buffer.alloc(memoryMiB << 20)
    this.#came = new Uint8Array(this.#ram.length / PAGE_BYTES)
  }

  /** Connects to QEMU at `socketPath` when somebody connects to it. */
  static async between(socketPath: string, memoryMiB: number): Promise<DeliveredRam> {
    const between = new DeliveredRam(`${socketPath}-b`, memoryMiB)
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
    return { ramHash: createHash('sha256').update(this.#ram).digest('hex'), missing, twice: this.#twice }
  }

  async #pass(source: Socket, target: Socket): Promise<void> {
    for (const [one, other] of [
      [source, target],
      [target, source]
    ] as const) {
      one.on('error', () => other.destroy())
      one.on('close', () => other.destroy())
    }
    target.pipe(source)
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

  #pages(): SnapshotParser {
    let names: readonly string[] = []
    return new SnapshotParser({
      blocks: blocks => void (names = blocks.map(({ name }) => name)),
      page: (block, offset, bytes) => {
        if (names[block] !== MAIN_BLOCK) return
        const page = offset / PAGE_BYTES
        if (this.#came[page] !== 0) this.#twice++
        this.#came[page] = 1
        if (bytes) this.#ram.set(bytes, offset)
      }
    })
  }
}
