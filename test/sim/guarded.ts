/** A run in which nothing may throw and no rejected promise may be left alone: either is a violation of the seed, not its end. */

export type Stray = 'nothingThrows' | 'nothingIsLeftRejected'

/** What `live` resolves with; undefined where it has failed. */
export async function guarded<T>(
  live: () => Promise<T>,
  fail: (invariant: Stray, what: string) => void
): Promise<T | undefined> {
  const rejected = (error: unknown): void => fail('nothingIsLeftRejected', told(error))
  process.on('unhandledRejection', rejected)
  try {
    const result = await live()
    // A turn of the real event loop: Node tells only then of promises that nobody has handled.
    await new Promise(resolve => setImmediate(resolve))
    return result
  } catch (error) {
    fail('nothingThrows', told(error))
    return undefined
  } finally {
    process.off('unhandledRejection', rejected)
  }
}

const told = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error))
