/** A peer that has no file descriptor left starts no program, says so, and lives. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'

const child = join(import.meta.dirname, 'no-descriptors-child.ts')

it('a program that cannot be started for want of a file descriptor is an error of its own, and ends nobody', async () => {
  const command = ['-c', 'ulimit -n 80; exec "$0" "$1"', process.execPath, child]
  const { stdout } = await promisify(execFile)('sh', command, { timeout: 60_000 })
  expect(JSON.parse(stdout)).toEqual({
    qemu: 'HYPERVISOR_SPAWN',
    tracker: 'HYPERVISOR_TRACKING',
    notice: 'NOTIFICATION_FAILED',
    check: 'DRILL_CHECK',
    interfaces: true,
    words: true
  })
})
