/** The API's requests about images as files; the table stands in `api.ts`. Bodies are streams of `image-records.ts`. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { DiapauseError, messageOf, UsageError } from '../errors.ts'
import { encodeRecord, type ImageRecord, RecordReader } from './image-records.ts'
import { type ExportedImage, type ImportedFile, parseImportWish } from './image-view.ts'
import { BODY_DEADLINE_MS, type Route } from './routing.ts'
import { TCP_LIMITS } from './tcp-limits.ts'

export const imageRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/groups/{group}/vms/{vm}/image',
    role: 'admin',
    summary: 'The image of a VM, with its RAM and its disks',
    answer: async ({ view, query, response }, [group = '', vm = '']) => {
      const image = await view.images.export({ group, vm, epoch: epochOf(query.get('epoch')) })
      response.writeHead(200, { 'content-type': 'application/octet-stream' })
      // Whoever asked may go away: then the image is not read any further.
      await pipeline(Readable.from(recordsOf(image)), response).catch(() => {})
      return undefined
    }
  },
  {
    method: 'POST',
    path: '/v1/images',
    role: 'admin',
    summary: 'Make a group of an image',
    answer: async ({ view, request, response }) => {
      const records = readRecords(request)
      try {
        const first = await records.next()
        if (first.done === true || first.value.kind !== 'about') throw bad('it does not say what it is of')
        return { status: 201, body: await view.images.import(parseImportWish(first.value.value), filesOf(records)) }
      } finally {
        await records.return() // who iterates holds the rest back
        await throwAway(request, response)
      }
    }
  }
]

function epochOf(text: string | null): number | undefined {
  if (text === null) return undefined
  const epoch = Number(text)
  if (/^\d+$/.test(text) && Number.isSafeInteger(epoch)) return epoch
  throw new UsageError('API_BAD_REQUEST', `${JSON.stringify(text.slice(0, 100))} is not the number of an epoch`)
}

async function* recordsOf({ about, files }: ExportedImage): AsyncGenerator<Uint8Array> {
  try {
    yield* encodeRecord({ kind: 'about', value: about })
    for await (const { content, ...value } of files()) {
      yield* encodeRecord({ kind: 'file', value })
      for await (const bytes of content) yield* encodeRecord({ kind: 'data', bytes })
    }
    yield* encodeRecord({ kind: 'end' })
  } catch (error) {
    const code = error instanceof DiapauseError ? error.code : 'INTERNAL'
    yield* encodeRecord({ kind: 'error', value: { code, message: messageOf(error) } })
  }
}

/** Not by the request's own iterator, which ends the connection with it, and no answer could be sent. */
async function* readRecords(request: IncomingMessage): AsyncGenerator<ImageRecord, void> {
  const reader = new RecordReader()
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    yield* reader.push(chunk)
  }
}

/**
 * What is left of a request is read, or whoever sends it hears no answer. Who has not ended after BODY_DEADLINE_MS is
 * answered all the same, and cut off when that has had time to arrive.
 */
export async function throwAway(request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.readableEnded || request.destroyed) return
  const { promise: isOver, resolve: over } = Promise.withResolvers<void>()
  const late = setTimeout(over, BODY_DEADLINE_MS)
  request.once('end', over).once('close', over).resume()
  await isOver
  clearTimeout(late)
  if (request.readableEnded || request.destroyed) return
  request.pause()
  response.once('finish', () => setTimeout(() => request.socket.destroy(), TCP_LIMITS.lingerMs).unref())
}

/** Its files, each to be read to its end before the next; rejects where it breaks off. */
async function* filesOf(records: AsyncGenerator<ImageRecord, void>): AsyncGenerator<ImportedFile> {
  let next = await records.next()
  while (next.done !== true && next.value.kind === 'file') {
    const { name } = (next.value.value ?? {}) as { name?: unknown }
    if (typeof name !== 'string') throw bad('a file has no name')
    const content = async function* (): AsyncGenerator<Uint8Array> {
      for (next = await records.next(); next.done !== true && next.value.kind === 'data'; next = await records.next()) {
        yield next.value.bytes
      }
      // Told here, too: whoever reads this file must not take it for whole.
      if (next.done === true) throw bad('it broke off')
    }
    yield { name, content: content() }
  }
  if (next.done === true) throw bad('it broke off')
  if (next.value.kind !== 'end') throw bad(`a record ${next.value.kind} where none belongs`)
}

const bad = (what: string) => new UsageError('IMPORT_INVALID', `what was sent to be imported is wrong: ${what}`)
