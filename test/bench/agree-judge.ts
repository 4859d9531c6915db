/**
 * Are the disks of an image of the same moment as its RAM? By the order in which the guest does things (`../guest/counter.c`:
 * RAM, the file and its fsync, the second disk and its fsync, RAM again) there is in every moment
 *
 *     synced <= highest on vdb <= highest in the file on vda <= ram <= synced + 1
 *
 * so a disk may lack the one number whose fsync has not returned, and no other; and the rings hold the numbers before it, so
 * that no older write is missing. This is asked twice: of the image as it lies in the shards, without a guest that could
 * mend it; and of a VM that was restored from it.
 */
import { execFile } from 'node:child_process'
import { copyFile, readFile, rm } from 'node:fs/promises'
import { createWriteStream } from 'node:fs'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { messageOf } from '../../node/errors.ts'
import { readWholeTable } from '../../node/image/boot-set.ts'
import { exportDisk } from '../../node/image/disk-files.ts'
import { PlaceReader, type ReadStream } from '../../node/image/place-reader.ts'
import type { BlockSource, ImageManifest } from '../../node/ports.ts'
import { clock } from '../contract/real-clock.ts'
import { ramOfImage } from '../contract/image-ram.ts'
import { counterInRam, highestOf } from '../guest/counter.ts'
import { type AgreeRig, RING_SLOTS, type Taken } from './agree-rig.ts'

export interface Judged {
  readonly epoch: number
  readonly mode: Taken['mode']
  readonly pauseMs: number
  /** Of the image. */
  readonly ram: number
  readonly synced: number
  /** The highest number on each disk of the image; undefined where its ring makes no sense. */
  readonly onDisks: readonly (number | undefined)[]
  /** Where disk and RAM do not agree, in words. */
  readonly disagreements: readonly string[]
  /** What is wrong with its ext4 besides a journal to replay, in words. */
  readonly unclean: readonly string[]
  /** Steps that the restored VM had done when it was asked. */
  readonly steps: number
  readonly restoreMs: number
}

/** One after the other; several judges may work at once. */
export class Judge {
  readonly #rig: AgreeRig
  /** Where the guest keeps its numbers: the same page in all of its lives. */
  #page: number | undefined

  constructor(rig: AgreeRig) {
    this.#rig = rig
  }

  async judge({ image, mode, pauseMs }: Taken): Promise<Judged> {
    const { ram, synced } = await this.#inRam(image)
    const disks = await this.#disks(image, `${this.#rig.folder}/j${image.epoch}`)
    const restored = await this.#restored(image, mode, synced)
    const { epoch } = image
    const disagreements = [...disks.faults, ...orderFaults(ram, synced, disks.highest), ...restored.faults]
    const { steps, restoreMs } = restored
    const { unclean, highest: onDisks } = disks
    return { epoch, mode, pauseMs, ram, synced, onDisks, disagreements, unclean, steps, restoreMs }
  }

  async #inRam(image: ImageManifest): Promise<{ ram: number; synced: number }> {
    const { facts, cluster } = this.#rig
    this.#page ??= counterInRam(await ramOfImage(facts, image, cluster)).page
    const read: ReadStream = (stream, offset, length) => {
      const manifest = image.streams.find(each => each.stream === stream)
      if (!manifest) throw new Error(`image ${image.epoch} names no stream ${stream}`)
      return cluster.readData(manifest, offset, length)
    }
    const table = await readWholeTable(facts, image, read)
    for await (const { bytes } of new PlaceReader({ facts, table, read }).contents([this.#page]))
      return counterInRam(Buffer.from(bytes))
    throw new Error(`image ${image.epoch} lacks page ${this.#page}`)
  }

  /** What the disks of the image hold, through the files that an export makes of them. */
  async #disks(image: ImageManifest, path: string) {
    const worker = await this.#rig.openWorker()
    try {
      const { disks } = await worker.restore(image)
      const [first, second] = disks
      if (!first || !second) throw new Error(`image ${image.epoch} has ${disks.length} disks`)
      const [vda, vdb] = [`${path}.vda`, `${path}.vdb`]
      await toRaw(first, vda)
      await toRaw(second, vdb)
      const { unclean, ring } = await ext4At(vda)
      const faults: string[] = []
      const highest = [ring, await readFile(vdb)].map((bytes, disk) => {
        try {
          return highestOf(bytes, RING_SLOTS)
        } catch (error) {
          faults.push(`disk ${disk} of the image: ${messageOf(error)}`)
          return undefined
        }
      })
      for (const name of [vda, vdb]) await rm(name)
      return { unclean, highest, faults }
    } finally {
      await worker.close()
    }
  }

  /** What a VM sees that is restored from it, as a peer restores it. Afterwards it is gone. */
  async #restored(image: ImageManifest, mode: Taken['mode'], synced: number) {
    const fromMs = clock.now()
    try {
      const life = await this.#rig.restore(image, mode)
      try {
        const restoreMs = clock.now() - fromMs
        const { wrong, synced: now } = await life.told('check')
        const faults = wrong === 0 ? [] : [`the restored VM found ${wrong} wrong slots`]
        if (now < synced || now >= synced + RING_SLOTS) faults.push(`the restored VM went on from ${synced} to ${now}`)
        return { faults, steps: now - synced, restoreMs }
      } finally {
        await life.end()
      }
    } catch (error) {
      return { faults: [`the restored VM: ${messageOf(error)}`], steps: 0, restoreMs: clock.now() - fromMs }
    }
  }
}

/** In words, what is not as the head of this file says. */
export function orderFaults(ram: number, synced: number, onDisks: readonly (number | undefined)[]): string[] {
  const faults = ram === synced || ram === synced + 1 ? [] : [`RAM itself says ${synced} and ${ram}`]
  // From the last to be written to the first: none may have more than the one before it.
  let least = synced
  for (const [disk, highest] of [...onDisks.entries()].reverse()) {
    if (highest === undefined) continue
    if (highest < least) faults.push(`disk ${disk} is behind: ${highest}, and must have ${least}`)
    if (highest > ram) faults.push(`disk ${disk} is ahead: ${highest}, and RAM has ${ram}`)
    least = highest
  }
  return faults
}

async function toRaw(disk: BlockSource, path: string): Promise<void> {
  await pipeline(Readable.from(exportDisk(disk)), createWriteStream(`${path}.qcow2`))
  const { status, out } = await run('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', `${path}.qcow2`, path])
  if (status !== 0) throw new Error(`qemu-img: ${out}`)
  await rm(`${path}.qcow2`)
}

/** Replays the journal, as a mount does; what else e2fsck finds or would do is said in words. */
async function ext4At(path: string): Promise<{ unclean: string[]; ring: Buffer }> {
  const copy = `${path}.fsck`
  await copyFile(path, copy)
  const unclean: string[] = []
  const repair = await run('e2fsck', ['-fy', copy])
  const said = beyondReplay(repair.out)
  if (repair.status > 1 || said.length > 0) unclean.push(`e2fsck -fy ended with ${repair.status}: ${said.join('; ')}`)
  await rm(copy)
  await run('e2fsck', ['-fy', '-E', 'journal_only', path]) // its status says that it has changed something
  const check = await run('e2fsck', ['-fn', path])
  if (check.status !== 0) unclean.push(`e2fsck -fn after its journal ended with ${check.status}: ${check.out}`)
  const { out } = await run('debugfs', ['-R', `dump /ring ${copy}`, path])
  const ring = await readFile(copy).catch((cause: unknown) => {
    throw new Error(`no ring in the file system: ${out}`, { cause })
  })
  await rm(copy)
  return { unclean, ring }
}

/**
 * What e2fsck says of a file system that lacks nothing but the replay of its journal. The superblock's totals of free blocks and
 * inodes are among it: Linux writes them at unmount only and counts anew at a mount (`e2fsck -p` mends them without a word). Those
 * of groups are not.
 */
const USUAL = [
  /^e2fsck \d/,
  /^\S+: recovering journal$/,
  /^Pass \d/,
  /^Free (blocks|inodes) count wrong \(\d+, counted=\d+\)\.$/,
  /^Fix\? yes$/,
  /FILE SYSTEM WAS MODIFIED/,
  /^\S+: \d+\/\d+ files \([\d.]+% non-contiguous\), \d+\/\d+ blocks$/
]

/** Lines of `e2fsck -fy` that tell of more than that. */
export const beyondReplay = (out: string): string[] =>
  out.split('\n').filter(line => line.trim() !== '' && !USUAL.some(pattern => pattern.test(line)))

function run(program: string, args: readonly string[]): Promise<{ status: number; out: string }> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, LC_ALL: 'C' }
    execFile(program, [...args], { env }, (error, stdout, stderr) => {
      const status = error === null ? 0 : error.code
      if (typeof status === 'number') resolve({ status, out: stdout + stderr })
      else reject(error instanceof Error ? error : new Error(program))
    })
  })
}
