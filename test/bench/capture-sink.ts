/**
 * Where the columns of a peer that is measured go: files of a folder, which hold the data of each stream end to end. Parity is
 * counted and dropped. A put is done when the system has the bytes; the disks and links of a cluster are not what is measured.
 */
import { hash } from 'node:crypto'
import { type FileHandle, open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { CodeShape, ShardCluster, StreamManifest } from '../../node/ports.ts'

/** As five peers with default settings have it. */
export const SHAPE: CodeShape = { k: 3, m: 2, symbolBytes: 65_536 }
export const HOLDERS = ['a', 'b', 'c', 'd', 'e']

export class Sink implements ShardCluster {
  readonly #folder: string
  readonly #files = new Map<string, Promise<FileHandle>>()
  /** Of all columns so far, parity included. */
  bytesPut = 0
  bytesRead = 0

  constructor(folder: string) {
    this.#folder = folder
  }

  async putColumn({ stream }: { stream: string }, grid: number, column: number, bytes: Uint8Array): Promise<void> {
    const { k, m } = SHAPE
    const columns = HOLDERS.length
    this.bytesPut += bytes.length
    const file = await this.#file(stream)
    const symbolBytes = bytes.length / (k + m)
    const start = grid * columns * k * SHAPE.symbolBytes
    for (let row = 0; row < k; row++) {
      // The diagonal whose row `row` stands in this column (erasure/grid.ts, dataSymbolAt).
      const symbol = ((column - row + columns) % columns) * k + row
      await file.write(bytes, row * symbolBytes, symbolBytes, start + symbol * symbolBytes)
    }
  }

  async readData({ stream }: StreamManifest, offset: number, length: number): Promise<Uint8Array> {
    const file = await this.#file(stream)
    const { buffer } = await file.read(new Uint8Array(length), 0, length, offset)
    this.bytesRead += length
    return buffer
  }

  async putManifest(name: string, bytes: Uint8Array): Promise<void> {
    this.bytesPut += bytes.length
    await writeFile(join(this.#folder, `manifest-${name}`), bytes)
  }

  getManifest(name: string): Promise<Uint8Array> {
    return readFile(join(this.#folder, `manifest-${name}`))
  }

  #file(stream: string): Promise<FileHandle> {
    let file = this.#files.get(stream)
    if (file === undefined) {
      file = open(join(this.#folder, hash('sha256', stream).slice(0, 16)), 'w+')
      this.#files.set(stream, file)
    }
    return file
  }
}
