/**
 * Disks that are full, read-only, hung or slow: done to the file system of one host, and to the device below it, as the
 * kernel knows them; its processes are not touched. `power.ts` has the loss of power.
 */
import { readFileSync } from 'node:fs'
import { rm, stat, statfs } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { UsageError } from '../../../node/errors.ts'
import { type Disk, type Fault, once, type Target } from '../fault.ts'
import { needsGroups, slowDown } from './groups.ts'
import { guarded } from './guard.ts'
import { compile, needsPrograms, run } from './tools.ts'

/** Smaller than any file that somebody could still write. */
const BLOCK_BYTES = 4096
/** How soon what somebody gives back is taken, too: a guess. */
const REFILL_MS = 200

/** Somebody else takes all that is free, and all that becomes free. Ends with the file, which lies on the disk. */
export const fullDisk: Fault = {
  name: 'full-disk',
  about: 'its disk is full',
  lasts: { leastMs: 2_000, mostMs: 30_000 },
  reach: 'one',
  needs: needsPrograms('fallocate'),
  async begin({ disk }) {
    const path = join(disk.mounted, 'taken-by-others')
    let taken = await takeAll(disk, path, 0)
    const ending = new AbortController()
    const take = async (): Promise<void> => {
      while (!ending.signal.aborted) {
        taken = await takeAll(disk, path, taken)
        await sleep(REFILL_MS, undefined, { signal: ending.signal })
      }
    }
    const taking = take().catch(() => {}) // told to end, or the disk went away under it: what there is says so
    return once(async () => {
      ending.abort()
      await taking
      await rm(path, { force: true })
    })
  }
}

/** Allocates without writing, so that the file below the disk stays small. What it has taken then. */
async function takeAll({ mounted }: Disk, path: string, taken: number): Promise<number> {
  // Also what is kept for root: peers may be root.
  const { bfree, bsize } = await statfs(mounted)
  let [at, step] = [taken, Math.max(BLOCK_BYTES, bfree * bsize)]
  while (step >= BLOCK_BYTES) {
    const had = await run('fallocate', ['--offset', String(at), '--length', String(step), path]).then(
      () => true,
      (error: unknown) => {
        if (error instanceof UsageError) throw error
        return false // no room for so much
      }
    )
    if (had) at += step
    else step = Math.floor(step / 2)
  }
  return at
}

/**
 * As after an error that the file system finds in itself: ext4 takes no more writes, and reads go on; xfs gives EIO for
 * everything. Either has given up its journal, so that only a start anew helps: the heal is one, of the host, with a check.
 */
export const readOnlyDisk: Fault = {
  name: 'read-only-disk',
  about: 'its file system finds an error: ext4 is read-only from now on, xfs gives EIO',
  lasts: { leastMs: 2_000, mostMs: 20_000 },
  reach: 'one',
  needs: needsPrograms('mount', 'xfs_io', 'e2fsck'),
  async begin(target) {
    const { disk } = target
    if (disk.type === 'ext4') {
      await run('mount', ['-o', 'remount,errors=remount-ro', disk.mounted])
      const trigger = `/sys/fs/ext4/${basename(disk.device())}/trigger_fs_error`
      await run('sh', ['-c', 'echo 1 > "$1"', 'trigger', trigger])
    } else await run('xfs_io', ['-x', '-c', 'shutdown -f', disk.mounted])
    return once(() => startAnew(target))
  }
}

/** Of the device, what lies behind a place within these parts is bad. */
const BAD_BEHIND = { least: 1 / 8, most: 1 / 2 }

/**
 * Bad sectors by the million: what lies there can be neither read nor written. Where that hits the journal, the file system
 * gives up. Then the disk is good again, all that was on it is, and the host starts anew.
 */
export const failingDisk: Fault = {
  name: 'failing-disk',
  about: 'half of its disk or more gives EIO, for reads and writes',
  lasts: { leastMs: 2_000, mostMs: 20_000 },
  reach: 'one',
  needs: needsPrograms('gcc', 'e2fsck'),
  async begin(target) {
    const { disk, random, scratchDir } = target
    const program = join(scratchDir, 'loop-limit')
    await compile(join(import.meta.dirname, 'loop-limit.c'), program)
    const { size } = await stat(disk.image)
    const bytes = Math.floor(size * (BAD_BEHIND.least + (BAD_BEHIND.most - BAD_BEHIND.least) * random()))
    const device = disk.device()
    await run(program, [device, String(bytes - (bytes % BLOCK_BYTES))])
    return once(async () => {
      await run(program, [device, '0'])
      await startAnew(target)
    })
  }
}

async function startAnew(target: Target): Promise<void> {
  const { disk } = target
  const start = await target.halt()
  await disk.unmount()
  if (disk.type === 'ext4') await check(disk.image)
  await disk.mount()
  await start()
}

/** e2fsck ends with 1 where it has mended something. */
async function check(image: string): Promise<void> {
  await run('e2fsck', ['-p', image]).catch((error: unknown) => {
    if ((error as { code?: unknown }).code !== 1) throw error
  })
}

/** Who writes waits, in the kernel, where no signal reaches it; it goes on when the disk does. Reads are answered. */
export const hungDisk: Fault = {
  name: 'hung-disk',
  about: 'its disk hangs: who writes waits',
  lasts: { leastMs: 1_000, mostMs: 30_000 },
  reach: 'one',
  needs: needsPrograms('fsfreeze'),
  begin: ({ disk }) =>
    guarded({ act: 'fsfreeze --freeze "$1"', undo: 'fsfreeze --unfreeze "$1" 2> /dev/null', args: [disk.mounted] })
}

/** From a card in a camera (a quarter of a MB/s) to an old disk that seeks (2 MB/s): guesses. */
const SLOW_BYTES = { least: 256 << 10, most: 2 << 20 }

/** The file system's own work, its journal among it, is as slow where groups are of version 1, and is not in version 2. */
export const slowDisk: Fault = {
  name: 'slow-disk',
  about: 'its disk reads and writes 0.25 to 2 MiB a second each',
  lasts: { leastMs: 2_000, mostMs: 30_000 },
  reach: 'one',
  needs: needsGroups('disk'),
  async begin(target) {
    const bytes = Math.floor(SLOW_BYTES.least + target.random() * (SLOW_BYTES.most - SLOW_BYTES.least))
    const device = readFileSync(`/sys/class/block/${basename(target.disk.device())}/dev`, 'utf8').trim()
    return await slowDown(device, bytes, () => target.pids())
  }
}
