/** What VMs of this host have said on their serial consoles: QEMU appends it to a file each. */
import { execFile } from 'node:child_process'
import { open, readdir, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { hasCode, messageOf } from '../errors.ts'
import type { Clock, Log } from '../ports.ts'

const run = promisify(execFile)

/** How often a file is looked at while somebody waits for news of it. A guess: a person types, and waits for the echo. */
const LOOK_MS = 30
/** What is kept of each VM, its last; a guess: a talkative boot says 100 KiB. A file may have twice that before its beginning goes. */
const KEPT_BYTES = 16 << 20
/** How often files are looked at for their size. A serial port under KVM takes about a megabyte a second. A guess. */
const BOUND_EVERY_MS = 10_000

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
    const first = size > 2 * KEPT_BYTES ? size - KEPT_BYTES : 0
    const at = Math.min(size, Math.max(first, from < 0 ? size + from : from))
    const { bytesRead, buffer } = await file.read(Buffer.alloc(Math.min(most, size - at)), 0, undefined, at)
    return { from: at, bytes: buffer.subarray(0, bytesRead) }
  } finally {
    await file.close()
  }
}

export interface BoundOptions {
  /** Of the files, which QEMU holds open and appends to. */
  readonly folder: string
  readonly clock: Clock
  readonly log: Log
  readonly keptBytes?: number
}

/** Keeps a guest that speaks without end from filling its host's disk. The result ends it. */
export function boundConsoleLogs(options: BoundOptions): () => void {
  let cancel: () => void = () => {}
  let stopped = false
  const again = (): void => {
    if (!stopped) cancel = options.clock.after(BOUND_EVERY_MS, () => void lookAtSizes(options).finally(again))
  }
  again()
  return () => {
    stopped = true
    cancel()
  }
}

/** Never rejects. */
export async function lookAtSizes({ folder, log, keptBytes = KEPT_BYTES }: BoundOptions): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    const path = join(folder, name)
    try {
      const { size, blocks } = await stat(path)
      if (blocks * 512 > 2 * keptBytes) await dropBeginning(path, size - keptBytes)
    } catch (error) {
      if (!hasCode(error, 'ENOENT')) log.warn({ path, error: messageOf(error) }, 'a console log cannot be made smaller')
    }
  }
}

/**
 * Its blocks go back to the disk, and what follows stays where it was for whoever reads on. Where a file system cannot do that
 * all that was said goes: QEMU appends, and begins anew.
 */
async function dropBeginning(path: string, bytes: number): Promise<void> {
  await run('fallocate', ['--punch-hole', '--offset', '0', '--length', `${bytes}`, path]).catch(() => truncate(path, 0))
}
