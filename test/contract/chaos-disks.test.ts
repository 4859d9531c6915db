/** Faults of disks that the chaos runs use, on real file systems: do they do what they say, and heal? Needs root. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from 'vitest'
import { withDirectory } from '../unit/store-support.ts'
import { diskLimits } from './chaos-support.ts'

const run = promisify(execFile)
const child = join(import.meta.dirname, 'chaos-disks-child.ts')
/** All that is mounted goes with the namespace. */
const namespace = ['--mount', '--propagation', 'private', process.execPath, child]

type Facts = Readonly<Record<string, unknown>>

describe('faults of disks', () => {
  let seen: Record<'full' | 'readOnly' | 'failing' | 'hung' | 'slow' | 'power' | 'allPower', Facts[]> & {
    left: string[]
  }

  beforeAll(async () => {
    await withDirectory(async dir => {
      const { stdout } = await run('unshare', [...namespace, dir]).catch((error: unknown) => {
        throw new Error('this test needs root, util-linux, e2fsprogs and xfsprogs', { cause: error })
      })
      seen = JSON.parse(stdout) as typeof seen
    })
  })

  it('full: nothing can be written, also not where something was removed, until it heals', () => {
    // What takes the room is not written, or disks of many hosts would fill the machine's memory.
    const found = { during: 'ENOSPC', afterRemoval: 'ENOSPC', grewMiB: expect.any(Number), after: 'written' }
    expect(seen.full).toEqual([
      { type: 'ext4', ...found },
      { type: 'xfs', ...found }
    ])
    for (const { grewMiB } of seen.full) expect(grewMiB).toBeLessThan(10)
  })

  it('read-only: an ext4 is read and not written, an xfs gone, and the peer lives; the heal is a start anew', () => {
    const found = { samePeer: true, restarted: true, kept: 1_000, after: 'written' }
    expect(seen.readOnly).toEqual([
      { type: 'ext4', during: 'EROFS', read: 1_000, ...found },
      { type: 'xfs', during: 'EIO', read: 'EIO', ...found }
    ])
  })

  it('failing: what is written where it is bad gives EIO, and nothing that was synced before is lost', () => {
    const found = { failed: true, samePeer: true, restarted: true, kept: Array(8).fill(1_000), after: 'written' }
    expect(seen.failing).toEqual([
      { type: 'ext4', ...found },
      { type: 'xfs', ...found }
    ])
  })

  it('hung: who writes waits where no signal reaches it, and goes on when the disk does', () => {
    const found = { state: 'D', read: 1_000, code: 0, after: 2 }
    expect(seen.hung).toEqual([
      { type: 'ext4', ...found },
      { type: 'xfs', ...found }
    ])
  })

  it('slow: reads and writes no faster than it says, and as before afterwards', () => {
    for (const { readMs, writeMs, limited, limitedAfter } of seen.slow) {
      // 512 KiB at 256 KiB a second, of which the first slice comes at once.
      for (const tookMs of [readMs, writeMs]) expect(tookMs).toBeGreaterThan(1_000)
      expect(new Set(limited as boolean[])).toEqual(new Set([true]))
      expect(new Set(limitedAfter as boolean[])).toEqual(new Set([false]))
    }
  })

  it('without power: what was synced is there, the rest is gone, and what ran is killed and started anew', () => {
    const lost = {
      wrote: 'EIO',
      helper: 'T',
      ran: false,
      back: true,
      synced: 100_000,
      unsynced: 'ENOENT',
      after: 'written'
    }
    expect(seen.power).toEqual([lost])
    expect(seen.allPower).toEqual([lost, lost])
  })

  it('leave nothing', () => expect(seen.left).toEqual([]))
})

it('a disk that hangs or is slow is as before when whoever made it so is killed', async () => {
  await withDirectory(async dir => {
    const holding = spawn('unshare', [...namespace, dir, 'hold'], { stdio: ['ignore', 'pipe', 'inherit'] })
    const [line] = (await once(holding.stdout, 'data')) as [Buffer]
    const { mounted, device } = JSON.parse(line.toString()) as { mounted: string; device: string }
    const limits = async (): Promise<string> => (await diskLimits()).join('')
    expect(await limits()).toContain(`${device} `)
    // Somebody who lives on in the namespace, and who writes.
    const where = ['--mount', '--target', String(holding.pid)]
    const writing = run('nsenter', [...where, 'sh', '-c', 'echo x > "$1" && cat "$1"', 'sh', join(mounted, 'late')])
    let done = false
    void writing.then(() => {
      done = true
    })
    await new Promise(resolve => setTimeout(resolve, 500))
    expect(done).toBe(false)
    holding.kill('SIGKILL')
    expect((await writing).stdout).toBe('x\n')
    await expect.poll(limits, { timeout: 20_000 }).not.toContain(`${device} `)
  })
})
