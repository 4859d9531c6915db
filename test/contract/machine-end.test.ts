/** The end of a machine where its disk does not let go of what it had: the VM is gone, and its peer lives. */
import { execFile } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import type { Log } from '../../node/ports.ts'
import { bankVm, buildGuest } from '../guest/build.ts'
import { OneHost } from './one-vm.ts'
import { quietLog } from './real-clock.ts'

const run = promisify(execFile)
const warn = vi.fn<Log['warn']>()
let host: OneHost

beforeAll(async () => {
  host = await OneHost.open('portable', { ...quietLog, warn })
})

afterAll(async () => {
  await host?.close()
})

it('is an end, told once, where its layers cannot be removed, and a warning', async () => {
  const spec = { ...bankVm(await buildGuest(), { index: 1, total: 1, memoryMiB: 96 }), disks: [{ sizeMiB: 4 }] }
  const { machine } = await host.define('vm', spec)
  await machine.start()
  // As on a file system that takes no writes any more: a mount cannot be removed (needs root).
  const busy = join(host.folder, 'vm.layers', 'busy')
  await mkdir(busy)
  await run('mount', ['-t', 'tmpfs', 'none', busy])
  try {
    process.kill(machine.pid ?? 0, 'SIGKILL')
    const kept = [expect.objectContaining({ vm: 'vm1' }), expect.stringContaining('stays until this peer starts again')]
    await expect.poll(() => warn.mock.calls, { timeout: 20_000 }).toContainEqual(kept)
    await expect(machine.destroy()).resolves.toBeUndefined()
    expect(warn.mock.calls.filter(([, what]) => String(what).includes('stays until'))).toHaveLength(1)
  } finally {
    await run('umount', [busy])
  }
}, 120_000)
