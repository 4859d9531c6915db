import { hasCode } from '../errors.ts'
import type { Clock } from '../ports.ts'

/** From the end of QEMU's socket to the news of its exit, on a busy host. A guess. */
const LAST_WORDS_MS = 300

/**
 * As `work`, the pages of a VM. A QEMU that dies closes its socket, too; why it died comes with its exit, which is to be told
 * first.
 */
export async function afterLastWords<T>(clock: Pick<Clock, 'after'>, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    if (hasCode(error, 'MIGRATION_STREAM_CLOSED'))
      await new Promise<void>(resolve => clock.after(LAST_WORDS_MS, resolve))
    throw error
  }
}
