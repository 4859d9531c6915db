/** What is done before a shard store can be used: its version, and an index that says what the segments say. */
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { Clock, Log } from '../ports.ts'
import { type Catalog, openCatalog } from './catalog.ts'
import { storeError } from './files.ts'
import { type Recovered, recover } from './recovery.ts'
import type { Space } from './space.ts'

const FORMAT = 'diapause shard store 1\n'

/** STORE_VERSION where the directory is of another version; a new one is made to be of this. */
export async function checkFormat(dir: string): Promise<void> {
  const path = join(dir, 'format')
  try {
    const found = await readFile(path, 'utf8')
    if (found === FORMAT) return
    // A first start may have been cut off in the middle of writing it.
    if (!FORMAT.startsWith(found)) {
      throw new DiapauseError(
        'STORE_VERSION',
        `${dir} is a shard store of another version (${found.trim().slice(0, 80)})`
      )
    }
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error
  }
  await writeFile(path, FORMAT, { flush: true }).catch(error => {
    throw storeError(`the shard store in ${dir} could not be made`, error)
  })
}

/** The index, brought up to date. One that cannot be opened or read is deleted and built again from the segments. */
export async function openIndex(
  path: string,
  segmentsDir: string,
  { space, clock, log }: { space: Space; clock: Clock; log: Log }
): Promise<{ catalog: Catalog; recovered: Recovered }> {
  const makeRoom = (): Promise<boolean> => space.giveReserve()
  const attempt = async (): Promise<{ catalog: Catalog; recovered: Recovered }> => {
    const catalog = await openCatalog(path, { clock, log, makeRoom })
    try {
      return { catalog, recovered: await recover(segmentsDir, catalog, log) }
    } catch (error) {
      await catalog.close()
      throw error
    }
  }
  try {
    return await attempt()
  } catch (error) {
    if (hasCode(error, 'STORE_FULL') && (await makeRoom())) return await attempt()
    if (!hasCode(error, 'STORE_IO')) throw error
    log.warn({ path, error: messageOf(error) }, 'the index of the shard store is damaged and is built again')
    await rm(path, { recursive: true, force: true })
    return await attempt()
  }
}
