/**
 * A file system of its own for each peer's data, in a file in memory. Mounted in the mount namespace of this process
 * (`main.ts` has made one), so that mounts, loop devices and files end with it and its children, whatever ended it.
 */
import { execFile } from 'node:child_process'
import { chmod, mkdir, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { messageOf, UsageError } from '../../node/errors.ts'
import type { Disk } from './fault.ts'

const run = promisify(execFile)

/** Room for some epochs of small VMs, and to be filled. xfs has at least 300 MB; what nobody wrote takes no memory. */
const DISK_MIB = 1_024

/** The folder of all images and mounts, in memory. UsageError CHAOS_MOUNT where nothing can be mounted. */
export async function makeDisks(dir: string, names: readonly string[]): Promise<Disk[]> {
  await mkdir(dir, { recursive: true })
  try {
    await run('mount', ['-t', 'tmpfs', '-o', `size=${names.length * DISK_MIB + 64}m`, 'none', dir])
    return await Promise.all(names.map((name, i) => LoopDisk.make(dir, name, i % 2 === 0 ? 'ext4' : 'xfs')))
  } catch (cause) {
    await removeDisks(dir, [])
    throw new UsageError(
      'CHAOS_MOUNT',
      `disks cannot be mounted here: run as root, in a container with CAP_SYS_ADMIN and loop devices (${messageOf(cause).trim()})`,
      { cause }
    )
  }
}

/** What came back is still mounted. */
export async function removeDisks(dir: string, disks: readonly Disk[]): Promise<string[]> {
  const left: string[] = []
  const note = (what: string) => (error: unknown) => void left.push(`${what}: ${messageOf(error).trim()}`)
  for (const disk of disks) await disk.unmount().catch(note(disk.mounted))
  await run('umount', [dir]).catch(note(dir))
  return left
}

class LoopDisk implements Disk {
  readonly type: Disk['type']
  readonly mounted: string
  readonly image: string
  #device = ''

  private constructor(dir: string, name: string, type: Disk['type']) {
    this.type = type
    this.mounted = join(dir, name)
    this.image = join(dir, `${name}.${type}`)
  }

  /** Of either type: peers do not choose what their operators have. */
  static async make(dir: string, name: string, type: Disk['type']): Promise<LoopDisk> {
    const disk = new LoopDisk(dir, name, type)
    await mkdir(disk.mounted)
    await run('truncate', ['-s', `${DISK_MIB}M`, disk.image])
    // Without lazy work, which would keep the disk busy later. /sbin is not in everybody's path.
    const make =
      type === 'ext4' ? ['mkfs.ext4', '-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0'] : ['mkfs.xfs', '-q']
    const env = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` }
    await run(make[0] ?? '', [...make.slice(1), disk.image], { env })
    await disk.mount()
    await chmod(disk.mounted, 0o700)
    if (type === 'ext4') await rmdir(join(disk.mounted, 'lost+found'))
    return disk
  }

  device(): string {
    return this.#device
  }

  /**
   * Without `discard`: an ext4 that is shut down forgets on the device what files had that were removed in the transaction that
   * then never was (seen with kernel 6.18), as no disk without power does: after the next mount those files are there, and EIO.
   */
  async mount(): Promise<void> {
    await run('mount', ['-o', 'loop', this.image, this.mounted])
    const { stdout } = await run('findmnt', ['--noheadings', '--output', 'SOURCE', this.mounted])
    this.#device = stdout.trim()
  }

  /** Processes that are just ending may hold it for a moment. */
  async unmount(): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        await run('umount', [this.mounted])
        return
      } catch (error) {
        if (tries === 50) throw error
        await new Promise(resolve => setTimeout(resolve, 100))
      }
    }
  }
}
