/** A real file system without room: what a store refuses, and what it still does. Needs root and mkfs.ext4. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { withDirectory } from '../unit/store-support.ts'

interface Seen {
  readonly stored: number
  readonly refusal: string
  readonly freeWhenRefused: number
  readonly freeWhenFilled: number
  readonly space: { liveBytes: number; freeBytes: number }
  readonly refusalWhenFilled: string
  readonly streams: string[]
  readonly [fact: string]: unknown
}

it('a store on a full disk refuses puts and says why, reads, opens and deletes, and goes on when there is room', async () => {
  await withDirectory(async dir => {
    // All that is mounted goes with the namespace.
    const child = [process.execPath, join(import.meta.dirname, 'full-disk-child.ts'), dir]
    const { stdout } = await promisify(execFile)('unshare', ['--mount', '--propagation', 'private', ...child]).catch(
      (error: unknown) => {
        throw new Error('this test needs root, unshare (util-linux) and mkfs.ext4 (e2fsprogs)', { cause: error })
      }
    )
    const seen = JSON.parse(stdout) as Seen
    expect(seen.stored).toBeGreaterThan(100)
    expect(seen.refusal).toMatch(/^STORE_FULL .*disk is full.*free space, or drop old epochs/)
    // 10 MiB are kept for registers and for deleting; the index may have taken some since the disk was asked.
    expect(seen.freeWhenRefused).toBeGreaterThan(6 << 20)
    expect(seen.freeWhenFilled).toBeLessThan(64 << 10)
    expect(seen.space).toMatchObject({ freeBytes: 0 })
    expect(seen.refusalWhenFilled).toMatch(/^STORE_FULL /)
    expect(seen).toMatchObject({
      manifestWhenFilled: 'STORE_FULL',
      readWhenRefused: seen.stored,
      readWhenFilled: seen.stored,
      readWhenReopened: seen.stored,
      streams: ['g/v/1/0'],
      readWhenDropped: Math.ceil(seen.stored / 2),
      putAfterwards: 'stored',
      readInTheEnd: Math.ceil(seen.stored / 2)
    })
  })
})
