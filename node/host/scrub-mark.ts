/** How far the check of what is stored has come (`agents/scrub.ts`), on disk: a restart does not begin anew. */
import { join } from 'node:path'
import { z } from 'zod'
import { readIfThere, writeDurably } from './files.ts'

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const markSchema = z.strictObject({
  startedMs: z.number().min(0),
  after: z.strictObject({ stream: z.string().max(255), grid: count, column: count }).optional(),
  bytes: count,
  columns: count,
  damaged: count
})

export type ScrubMark = z.output<typeof markSchema>

export class ScrubMarkFile {
  readonly #file: string

  constructor(dataDir: string) {
    this.#file = join(dataDir, 'scrub.json')
  }

  /** Undefined also where the file is damaged: then a pass begins anew. */
  async read(): Promise<ScrubMark | undefined> {
    try {
      return markSchema.safeParse(JSON.parse((await readIfThere(this.#file)) ?? 'null')).data
    } catch {
      return undefined
    }
  }

  async write(mark: ScrubMark): Promise<void> {
    await writeDurably(this.#file, `${JSON.stringify(mark)}\n`)
  }
}
