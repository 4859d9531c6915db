/** An exported VM as a directory: written as it comes from a peer, and read, with every byte checked, to be imported. */
import { createHash, hash as hashOf } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { chmod, mkdtemp, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { z } from 'zod'
import { check, problemText } from '../../config/words.ts'
import { disksOf, type VmSpec } from '../../protocols/group.ts'
import { DiapauseError, hasCode, messageOf, UsageError } from '../errors.ts'
import type { ApiClient } from './client.ts'
import { readmeText } from './image-readme.ts'
import { encodeRecord, type ImageRecord } from './image-records.ts'
import { type ExportWish, imageAboutSchema } from './image-view.ts'

const ABOUT_FILE = 'image.json'
const README_FILE = 'README.txt'
const RAM_FILE = 'ram.migration'
const diskFile = (disk: number): string => `disk${disk}.qcow2`
/** In the order in which they are sent. */
const contentFiles = (spec: Pick<VmSpec, 'disks'>): string[] => [RAM_FILE, ...disksOf(spec).map((_, i) => diskFile(i))]
/** A specification has a few kilobytes. */
const MAX_ABOUT_BYTES = 1 << 20
/** A piece of a file: some dozen to the largest record. */
const READ_BYTES = 256 << 10

const fileName = z.string().regex(/^\w[\w.-]{0,60}$/)
const directorySchema = z.strictObject({
  format: z.literal('diapause image directory 1'),
  image: imageAboutSchema,
  files: z.record(
    fileName,
    z.strictObject({ bytes: z.number().int().min(0), sha256: z.string().regex(/^[0-9a-f]{64}$/) })
  )
})
export type Directory = z.output<typeof directorySchema>
type Files = Directory['files']

/** Tells how far it is. */
type Progress = (text: string) => void

// ---------------------------------------------------------------------------------------------- export

/**
 * Into a directory of a temporary name, which gets its own when all is there, and is removed when it fails. UsageErrors
 * EXPORT_EXISTS, EXPORT_FOLDER; API_ANSWER, and what the peer says.
 */
export async function exportTo(
  out: string,
  client: ApiClient,
  wish: ExportWish,
  { progress, signal }: { progress: Progress; signal: AbortSignal }
): Promise<Directory> {
  const target = resolve(out)
  if (await exists(target))
    throw new UsageError('EXPORT_EXISTS', `${out} is there already: name a directory that is not`)
  const records = client.exportImage(wish, signal)
  let partial: string | undefined
  try {
    const first = await records.next() // before anything is made: a wrong VM or epoch leaves nothing behind
    partial = await newFolder(target)
    const made = await new ExportFolder(partial, progress).write(first, records)
    await rename(partial, target)
    return made
  } catch (error) {
    if (partial !== undefined) await rm(partial, { recursive: true, force: true })
    throw error
  }
}

async function newFolder(target: string): Promise<string> {
  try {
    return await mkdtemp(join(dirname(target), `.${basename(target)}.partial-`))
  } catch (cause) {
    throw new UsageError('EXPORT_FOLDER', `cannot make a directory in ${dirname(target)}: ${messageOf(cause)}`, {
      cause
    })
  }
}

class ExportFolder {
  readonly #dir: string
  readonly #progress: Progress
  readonly #files: Files = {}

  constructor(dir: string, progress: Progress) {
    this.#dir = dir
    this.#progress = progress
  }

  async write(
    first: IteratorResult<ImageRecord, void>,
    records: AsyncGenerator<ImageRecord, void>
  ): Promise<Directory> {
    const about = check(imageAboutSchema, first.done === true || first.value.kind !== 'about' ? {} : first.value.value)
    if (!about.ok) throw broken(about.problems.map(problemText).join('; '))
    let next = await records.next()
    while (next.done !== true && next.value.kind === 'file') next = await this.#file(next.value.value, records)
    if (next.done === true || next.value.kind !== 'end') throw broken('it has no end')
    await this.#text(README_FILE, readmeText(about.value, Object.keys(this.#files)))
    const made: Directory = { format: 'diapause image directory 1', image: about.value, files: this.#files }
    await writeFile(join(this.#dir, ABOUT_FILE), `${JSON.stringify(made, null, 2)}\n`)
    return made
  }

  /** The record behind its data. */
  async #file(value: unknown, records: AsyncGenerator<ImageRecord, void>): Promise<IteratorResult<ImageRecord, void>> {
    const about = check(fileSchema, value)
    if (!about.ok || about.value.name in this.#files) throw broken('a file with a wrong name')
    const { name, expectedBytes, executable } = about.value
    const path = join(this.#dir, name)
    const sha256 = createHash('sha256')
    const file = await open(path, 'wx', 0o600)
    let bytes = 0
    try {
      for (;;) {
        const next = await records.next()
        if (next.done === true || next.value.kind !== 'data') {
          await file.sync()
          this.#files[name] = { bytes, sha256: sha256.digest('hex') }
          if (executable === true) await chmod(path, 0o700)
          return next
        }
        sha256.update(next.value.bytes)
        await file.appendFile(next.value.bytes)
        bytes += next.value.bytes.length
        this.#progress(progressText(name, bytes, expectedBytes))
      }
    } finally {
      await file.close()
    }
  }

  async #text(name: string, text: string): Promise<void> {
    await writeFile(join(this.#dir, name), text)
    this.#files[name] = { bytes: Buffer.byteLength(text), sha256: hashOf('sha256', text) }
  }
}

const fileSchema = z.strictObject({
  name: fileName,
  expectedBytes: z.number().min(0).optional(),
  executable: z.boolean().optional()
})

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    error => {
      if (hasCode(error, 'ENOENT')) return false
      throw error
    }
  )

const broken = (what: string) => new DiapauseError('API_ANSWER', `the peer sent an image that is not whole: ${what}`)

function progressText(name: string, bytes: number, expectedBytes = 0): string {
  const share = expectedBytes > 0 ? `, ${Math.min(100, Math.floor((100 * bytes) / expectedBytes))} %` : ''
  return `${name}: ${Math.floor(bytes / 2 ** 20)} MiB${share}`
}

// ---------------------------------------------------------------------------------------------- import

/** UsageErrors IMPORT_FOLDER, IMPORT_INVALID. */
export async function readDirectory(dir: string): Promise<Directory> {
  const path = join(dir, ABOUT_FILE)
  let raw: unknown
  try {
    if ((await stat(path)).size > MAX_ABOUT_BYTES) throw new TypeError(`it has more than ${MAX_ABOUT_BYTES} bytes`)
    raw = JSON.parse(await readFile(path, 'utf8'))
  } catch (cause) {
    throw new UsageError('IMPORT_FOLDER', `${dir} is no exported VM: cannot read ${path}: ${messageOf(cause)}`, {
      cause
    })
  }
  const shape = check(directorySchema, raw)
  const lacking = shape.ok ? contentFiles(shape.value.image.spec).filter(name => !shape.value.files[name]) : []
  if (shape.ok && lacking.length === 0) return shape.value
  const problems = shape.ok
    ? lacking.map(name => `files.${name}: expected its size and digest, found nothing`)
    : shape.problems.map(problemText)
  throw new UsageError('IMPORT_INVALID', `${path} is wrong:\n  ${problems.join('\n  ')}`)
}

/** UsageErrors IMPORT_FOLDER, IMPORT_DIGEST: then nothing says that the image is whole, and the peer drops it. */
export async function* recordsOf(
  dir: string,
  { image, files }: Directory,
  wish: object,
  progress: Progress
): AsyncGenerator<Uint8Array, void> {
  yield* encodeRecord({ kind: 'about', value: wish })
  for (const name of contentFiles(image.spec)) {
    yield* encodeRecord({ kind: 'file', value: { name } })
    yield* dataOf(join(dir, name), { name, expected: files[name], progress })
  }
  progress('the group is made')
  yield* encodeRecord({ kind: 'end' })
}

async function* dataOf(
  path: string,
  { name, expected, progress }: { name: string; expected: Files[string] | undefined; progress: Progress }
): AsyncGenerator<Uint8Array, void> {
  const sha256 = createHash('sha256')
  let bytes = 0
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: READ_BYTES }) as AsyncIterable<Buffer>) {
      sha256.update(chunk)
      bytes += chunk.length
      progress(progressText(name, bytes, expected?.bytes))
      yield* encodeRecord({ kind: 'data', bytes: chunk })
    }
  } catch (cause) {
    throw new UsageError('IMPORT_FOLDER', `cannot read ${path}: ${messageOf(cause)}`, { cause })
  }
  if (bytes !== expected?.bytes || sha256.digest('hex') !== expected.sha256) {
    const message = `${path} is not the file that ${ABOUT_FILE} describes: it was changed or is not whole`
    throw new UsageError('IMPORT_DIGEST', message)
  }
}
