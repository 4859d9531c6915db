/** QEMU's migration streams, both ways. What a snapshot is read as must not depend on where its chunks end. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import {
  type MachineState,
  PAGE_BYTES,
  postcopyDiscard,
  postcopyFinish,
  postcopyHeader,
  postcopyPages,
  postcopyRun,
  type RamBlock,
  ReturnPath,
  SnapshotParser
} from '../../node/hypervisor/migration-stream.ts'
import { decodeMachine, encodeMachine } from '../../node/image/machine.ts'
import { pack, unpack } from '../../node/image/seal.ts'
import type { Random } from '../../protocols/core.ts'
import { deviceStream, fakeMachine, pageOf, readPostcopy, snapshotStream, u32, u64 } from '../unit/image/support.ts'
import { attempt, inAnyChunks, type Target } from './target.ts'

const STREAM = /^MIGRATION_STREAM_/
const RETURN_PATH = /^MIGRATION_STREAM_RETURN_PATH$/
const IMAGE = /^IMAGE_INVALID$/

const CORPUS = join(import.meta.dirname, 'corpus')

/** Files of the corpus that begin with `prefix`. */
export const corpus = (prefix: string): Uint8Array[] =>
  readdirSync(CORPUS)
    .filter(name => name.startsWith(prefix) && name.endsWith('.bin'))
    .sort()
    .map(name => new Uint8Array(readFileSync(join(CORPUS, name))))

const small = fakeMachine(new Map([3, 4, 200].map(page => [page, pageOf(page)])), 1)

// ---------------------------------------------------------------------------------------------- snapshots

/** All that a parser says of a stream, pages by their checksum. Checks what it may say at all. */
function read(chunks: readonly Uint8Array[]): { readonly text: string; readonly machine: MachineState } {
  const known: RamBlock[] = []
  let [pages, digest] = [0, 0]
  const parser = new SnapshotParser({
    blocks(blocks) {
      assert.equal(known.length, 0, 'the blocks come twice')
      known.push(...blocks)
    },
    page(block, offset, bytes) {
      const length = known[block]?.length ?? 0
      assert.ok(offset % PAGE_BYTES === 0 && offset >= 0 && offset + PAGE_BYTES <= length, `a page at ${offset}`)
      assert.ok(bytes === undefined || bytes.length === PAGE_BYTES, 'a page of another length')
      pages++
      digest = crc32(bytes ?? 'zero', crc32(`${block} ${offset}`, digest))
    }
  })
  for (const chunk of chunks) {
    parser.push(chunk)
    chunk.fill(0xa5) // a view that was kept longer than allowed would show
  }
  const machine = parser.end()
  const { config, ramHeader, ramId, blocks, devices } = machine
  const state = [crc32(config), crc32(ramHeader), ramId, JSON.stringify(blocks), devices.length, crc32(devices)]
  return { text: [pages, digest, ...state].join(' '), machine }
}

function snapshot(input: Uint8Array, random: Random): string | undefined {
  return inAnyChunks(STREAM, { input, random }, chunks => {
    const { text, machine } = read(chunks)
    // What QEMU's stream may hold, an image can.
    if (random() < 0.05) decodeMachine(encodeMachine({ machine, bootPages: [] }))
    return text
  })
}

// ---------------------------------------------------------------------------------------------- post-copy

/** `input` is a machine part before it is packed. What is sent of it must read as the same machine. */
function postcopy(input: Uint8Array, random: Random): string | undefined {
  const packed = random() < 0.9 ? pack(input) : input
  return attempt(
    IMAGE,
    () => decodeMachine(packed),
    ({ machine }) => {
      const main = machine.blocks.find(({ name }) => name === 'pc.ram') as RamBlock
      const pages = [0, main.length - PAGE_BYTES].map((offset, i) => ({
        offset,
        bytes: i === 0 ? undefined : pageOf(7)
      }))
      const parts = [
        postcopyHeader(machine),
        postcopyDiscard(),
        postcopyRun(machine),
        postcopyPages(machine.ramId, 'pc.ram', pages),
        postcopyFinish(machine.ramId)
      ]
      const sent = readPostcopy(Buffer.concat(parts))
      assert.deepEqual(
        [...sent.ram.keys()],
        machine.blocks.map(({ name }) => name)
      )
      assert.deepEqual(sent.devices, Buffer.from(machine.devices))
      assert.deepEqual(
        [...(sent.ram.get('pc.ram')?.keys() ?? [])],
        [...new Set(pages.map(({ offset }) => offset / PAGE_BYTES))]
      )
    }
  )
}

/** Machine parts before they are packed, of the streams of the corpus. */
export function machineParts(): Uint8Array[] {
  return [...corpus('snapshot'), snapshotStream(small)].map(stream => {
    const bytes = pageOf(9)
    const { machine } = read([Uint8Array.from(stream)])
    const block = machine.blocks.findIndex(({ name }) => name !== 'pc.ram')
    const part = encodeMachine({ machine, bootPages: [{ block, offset: 0, bytes }] })
    return Uint8Array.from(unpack(part, 1 << 24))
  })
}

const message = (type: number, body: Buffer) => Buffer.concat([Buffer.of(0, type), Buffer.of(0, body.length), body])

/** Pong, a request that names its block, one that does not, the end. */
const TALK = Buffer.concat([
  message(2, u32(77)),
  message(3, Buffer.concat([u64(8 * PAGE_BYTES), u32(PAGE_BYTES), Buffer.of(6), Buffer.from('pc.ram')])),
  message(4, Buffer.concat([u64(2 ** 33), u32(2 * PAGE_BYTES)])),
  message(1, u32(0))
])

function returnPath(chunks: readonly Uint8Array[]): string {
  const heard: string[] = []
  const reader = new ReturnPath({
    pages(block, offset, length) {
      assert.ok(Number.isSafeInteger(offset + length) && length >= 0, `a request of ${length} bytes at ${offset}`)
      heard.push(`${block} ${offset} ${length}`)
    },
    shut: status => void heard.push(`shut ${status}`),
    pong: value => void heard.push(`pong ${value}`)
  })
  for (const chunk of chunks) reader.push(chunk)
  return heard.join('\n')
}

const readReturnPath = (input: Uint8Array, random: Random): string | undefined =>
  inAnyChunks(RETURN_PATH, { input, random }, returnPath)

export const streamTargets: readonly Target[] = [
  {
    name: 'snapshot',
    group: 'images',
    summary: 'a background snapshot from QEMU, in any chunks',
    seeds: () => [...corpus('snapshot'), Uint8Array.from(snapshotStream(small, 3))],
    run: snapshot
  },
  {
    name: 'devices',
    group: 'images',
    summary: 'a stream of devices alone from QEMU, in any chunks',
    seeds: () => [...corpus('devices'), Uint8Array.from(deviceStream(small))],
    run: snapshot
  },
  {
    name: 'post-copy',
    group: 'images',
    summary: 'what is sent to QEMU of a machine part out of the shards',
    seeds: machineParts,
    run: postcopy
  },
  {
    name: 'return-path',
    group: 'images',
    summary: 'what QEMU asks for during a post-copy',
    seeds: () => [TALK],
    run: readReturnPath
  }
]
