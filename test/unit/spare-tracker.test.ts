import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, it, vi } from 'vitest'
import { SpareTracker } from '../../node/hypervisor/spare-tracker.ts'
import { clock } from '../contract/real-clock.ts'
import { leftRejected } from './left-rejected.ts'

afterEach(() => vi.useRealTimers())

/** Says that it listens, on what is no socket and cannot be removed as one, and soon ends. */
const HELPER = `#!/bin/sh
mkdir "$2"
printf '\\001\\000\\000\\000\\000\\000\\000\\000'
sleep 0.1
`

it('a helper that ends before a VM takes it costs its peer nothing, also where its socket cannot be removed', async () => {
  const runDir = await mkdtemp(join(tmpdir(), 'tracker-'))
  const binary = join(runDir, 'helper')
  await writeFile(binary, HELPER, { mode: 0o700 })
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  const trackers = new SpareTracker({ binary, runDir, clock: { ...clock, after: () => () => {} } })
  const first = await trackers.take(1)
  vi.runAllTimers() // the next is made
  vi.useRealTimers()
  const left = await leftRejected(async () => {
    await vi.waitFor(() => stat(join(runDir, 'tracker.2.uffd')), { timeout: 5_000 })
  }, 500)
  await trackers.close()
  expect(left).toEqual([])
  expect((await stat(join(runDir, 'tracker.2.uffd'))).isDirectory()).toBe(true)
  await first.tracker.end()
  await rm(runDir, { recursive: true })
})
