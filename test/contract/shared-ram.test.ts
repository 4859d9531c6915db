/** RAM files on a tmpfs that has room for one VM and not for two. */
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { RamFolder } from '../../node/hypervisor/shared-ram.ts'
import { clock } from './real-clock.ts'

const run = promisify(execFile)
const MIB = 1 << 20
let folder: string
let ram: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'shared-ram-'))
  ram = join(folder, 'ram')
  await mkdir(ram)
  await run('mount', ['-t', 'tmpfs', '-o', 'size=512m', 'none', ram]) // needs root
})

afterAll(async () => {
  await run('umount', [ram])
  await rm(folder, { recursive: true, force: true })
})

it('is promised to one of two VMs that start together, where there is room for one: the other would end when it writes', async () => {
  const rams = await RamFolder.probe({ folder: ram, runDir: folder, clock })
  try {
    const made = await Promise.allSettled([rams.make(256 * MIB), rams.make(256 * MIB), rams.make(256 * MIB)])
    const [first, ...others] = made
    expect(first).toMatchObject({ status: 'fulfilled' })
    for (const each of others) expect(each).toMatchObject({ reason: { code: 'HYPERVISOR_TRACKING' } })
    if (first?.status === 'fulfilled') await first.value.close()
    const again = await rams.make(256 * MIB)
    await again.close()
  } finally {
    await rams.close()
  }
}, 60_000)
