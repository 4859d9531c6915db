/** A QEMU without a machine, whose block layer is what is tested; and a disk that tells what was asked of it. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { spawnQemu } from '../../node/hypervisor/process.ts'
import { listenForQmp, QmpClient } from '../../node/hypervisor/qmp.ts'
import type { BlockExtent, BlockSource } from '../../node/ports.ts'
import { clock } from './real-clock.ts'

export const BLOCK = 4_096

/** Blocks of bytes that differ, or zeros where `isZero` says so. */
export class FakeDisk implements BlockSource {
  readonly bytes: number
  readonly #isZero: (block: number) => boolean
  /** What was read, in the order of asking. */
  readonly reads: { readonly offset: number; readonly length: number }[] = []
  /** Awaited by each read. */
  gate: () => Promise<void> = () => Promise.resolve()

  constructor(blocks: number, isZero: (block: number) => boolean) {
    this.bytes = blocks * BLOCK
    this.#isZero = isZero
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    this.reads.push({ offset, length })
    await this.gate()
    return this.content(offset, length)
  }

  content(offset: number, length: number): Buffer {
    const first = Math.floor(offset / BLOCK)
    const blocks = Buffer.alloc((Math.ceil((offset + length) / BLOCK) - first) * BLOCK)
    for (let i = 0; i * BLOCK < blocks.length; i++) {
      if (!this.#isZero(first + i)) blocks.fill(`block ${first + i} `, i * BLOCK, (i + 1) * BLOCK)
    }
    return blocks.subarray(offset - first * BLOCK, offset - first * BLOCK + length)
  }

  async extents(offset: number, length: number, most: number): Promise<BlockExtent[]> {
    const found: { length: number; zero: boolean }[] = []
    for (let at = offset; at < offset + length; ) {
      const end = Math.min((Math.floor(at / BLOCK) + 1) * BLOCK, offset + length)
      const zero = this.#isZero(Math.floor(at / BLOCK))
      const last = found.at(-1)
      if (last?.zero === zero) last.length += end - at
      else if (found.length === most) break
      else found.push({ length: end - at, zero })
      at = end
    }
    return found
  }
}

/** What a program prints; rejects with what it complains of. */
export function run(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args)
    let [out, err] = ['', '']
    child.stdout.on('data', (part: Buffer) => (out += part.toString()))
    child.stderr.on('data', (part: Buffer) => (err += part.toString()))
    child.on('error', reject)
    child.on('close', status => (status === 0 ? resolve(out) : reject(new Error(`${program} ${args[0]}: ${err}`))))
  })
}

export interface BlockQemu {
  readonly qmp: QmpClient
  /** Serves a block node to qemu-img and qemu-io: its URL. Once in a QEMU's life. */
  offer(node: string): Promise<string>
  close(): Promise<void>
}

export async function blockQemu(folder: string, name = 'qmp'): Promise<BlockQemu> {
  const listener = await listenForQmp(join(folder, name))
  const args = ['-M', 'none', '-nodefaults', '-display', 'none', '-qmp', `unix:${join(folder, name)},server=off`]
  const process = await spawnQemu('qemu-system-x86_64', args)
  const qmp = await QmpClient.open(await listener.connection, { clock })
  return {
    qmp,
    offer: async node => {
      const path = join(folder, `${name}-nbd`)
      await qmp.command('nbd-server-start', { addr: { type: 'unix', data: { path } } })
      await qmp.command('block-export-add', {
        type: 'nbd',
        id: 'offer',
        'node-name': node,
        name: 'node',
        writable: true
      })
      return `nbd+unix:///node?socket=${path}`
    },
    close: async () => {
      process.kill()
      await process.exited
    }
  }
}
