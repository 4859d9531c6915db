/** A VM whose host has no room for what it writes. Needs root and unshare. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { withDirectory } from '../unit/store-support.ts'

it('a VM that its host has no room for is ended when it writes, whoever took the room', {
  timeout: 180_000
}, async () => {
  await withDirectory(async dir => {
    const child = [process.execPath, join(import.meta.dirname, 'vm-disk-full-child.ts'), dir]
    const { stdout } = await promisify(execFile)('unshare', ['--mount', '--propagation', 'private', ...child])
    expect(JSON.parse(stdout)).toEqual({
      ranBefore: true,
      reason: expect.stringMatching(/could not use its disk \(a write of .* failed: No space left on device\)/),
      leftBytes: 0,
      runs: false
    })
  })
})
