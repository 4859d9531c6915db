import { connect } from 'node:net'
import {
  MAIN_BLOCK,
  type MachineState,
  PAGE_BYTES,
  postcopyDiscard,
  postcopyFinish,
  postcopyHeader,
  postcopyPages,
  postcopyRun,
  ReturnPath,
  SnapshotParser
} from '../../node/hypervisor/migration-stream.ts'
import type { PostcopySource } from './hypervisor-contract.ts'

/** The plainest source of a post-copy migration: a whole image in memory, sent to `socketPath`. For tests of the target. */
export function sourceImage(image: Buffer, socketPath: string, ram: Buffer | undefined): PostcopySource {
  const socket = connect(socketPath)
  socket.on('error', () => {})
  const close = () => void socket.destroy()
  if (image.length === 0) return { finish: async () => {}, close }

  const { machine, pages } = parseImage(image)
  const mainPages = pages.get(MAIN_BLOCK)
  for (let at = 0; at < (ram?.length ?? 0); at += PAGE_BYTES) mainPages?.set(at, ram?.subarray(at, at + PAGE_BYTES))
  const unsent = new Map([...pages].map(([name, ofBlock]) => [name, new Set(ofBlock.keys())]))
  /** Those of `offsets` that have not been sent: a page must not be sent twice, the guest may have written it. */
  const send = (block: string, offsets: Iterable<number>) => {
    const left = unsent.get(block)
    const fresh = [...offsets].filter(offset => left?.delete(offset))
    if (fresh.length === 0) return
    const list = fresh.map(offset => ({ offset, bytes: pages.get(block)?.get(offset) }))
    socket.write(postcopyPages(machine.ramId, block, list))
  }
  const returnPath = new ReturnPath({
    pages: (block, offset, length) => {
      for (let at = offset; at < offset + length; at += PAGE_BYTES) send(block, [at])
    },
    shut: () => {},
    pong: () => {}
  })
  socket.on('data', chunk => returnPath.push(chunk))
  socket.write(postcopyHeader(machine))
  for (const { name } of machine.blocks) if (name !== MAIN_BLOCK) send(name, unsent.get(name) ?? [])
  socket.write(postcopyDiscard())
  socket.write(postcopyRun(machine))
  return {
    finish: async () => {
      send(MAIN_BLOCK, unsent.get(MAIN_BLOCK) ?? [])
      await new Promise<void>(resolve => socket.write(postcopyFinish(machine.ramId), () => resolve()))
    },
    close
  }
}

function parseImage(image: Buffer): { machine: MachineState; pages: Map<string, Map<number, Uint8Array | undefined>> } {
  const pages = new Map<string, Map<number, Uint8Array | undefined>>()
  let names: string[] = []
  const parser = new SnapshotParser({
    blocks: blocks => {
      names = blocks.map(block => block.name)
      for (const { name, length } of blocks) {
        const zeros = Array.from({ length: length / PAGE_BYTES }, (_, page) => [page * PAGE_BYTES, undefined] as const)
        pages.set(name, new Map(zeros))
      }
    },
    page: (block, offset, bytes) => void pages.get(names[block] ?? '')?.set(offset, bytes?.slice())
  })
  parser.push(image)
  return { machine: parser.end(), pages }
}
