/** What VMs of this host have said on their serial consoles: QEMU appends it to a file each. */
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { hasCode } from '../errors.ts'
import type { Clock } from '../ports.ts'

/** How often a file is looked at while somebody waits for news of it. A guess: a person types, and waits for the echo. */
const LOOK_MS = 30

export interface ConsoleWish {
  readonly group: string
  readonly vm: string
  /** In bytes; negative: so many before the end. */
  readonly from: number
  readonly waitMs: number
}

/** `most`: bytes at a time. A file that there is not has said nothing. */
export class ConsoleLogs {
  readonly #runDir: string
  readonly #clock: Clock
  readonly #most: number

  constructor(runDir: string, clock: Clock, most: number) {
    this.#runDir = runDir
    this.#clock = clock
    this.#most = most
  }

  /** What stands from there on; where that is nothing, waits for it. A place beyond the end of the file is its end. */
  async read({ group, vm, from, waitMs }: ConsoleWish): Promise<{ from: number; bytes: Uint8Array }> {
    const path = join(this.#runDir, 'console', `${group}.${vm}.log`)
    const untilMs = this.#clock.now() + waitMs
    let at = from
    for (;;) {
      const said = await readFrom(path, at, this.#most)
      if (said.bytes.length > 0 || this.#clock.now() >= untilMs) return said
      at = said.from
      await new Promise<void>(resolve => this.#clock.after(LOOK_MS, resolve))
    }
  }
}

async function readFrom(path: string, from: number, most: number): Promise<{ from: number; bytes: Uint8Array }> {
  let file
  try {
    file = await open(path, 'r')
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return { from: 0, bytes: new Uint8Array() }
    throw error
  }
  try {
    const { size } = await file.stat()
    const at = Math.min(size, from < 0 ? Math.max(0, size + from) : from)
    const { bytesRead, buffer } = await file.read(Buffer.alloc(Math.min(most, size - at)), 0, undefined, at)
    return { from: at, bytes: buffer.subarray(0, bytesRead) }
  } finally {
    await file.close()
  }
}
