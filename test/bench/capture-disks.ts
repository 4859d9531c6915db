/**
 * A file that a guest has cached is on its disk and in its RAM: it must be shipped once. The disk's base is random bytes, which
 * nothing packs. The first epoch ships them with the disk; then the guest reads them all, and the next epoch finds them in RAM.
 */
import { randomFillSync } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { atMost, note } from '../measure.ts'
import { CaptureRig, type Epoch } from './capture-rig.ts'
import { type Mode, MODES, type Progress, type Section, type Size } from './capture-sections.ts'

const FILE_MIB = 64
const MIB = 1_048_576
/** Of the file's bytes, what may be shipped of it in all: what is above once is tables, and RAM that changes by itself. */
const TIMES = 1.1

export async function measureDisks(size: Size, folder: string, progress: Progress): Promise<Section> {
  const path = join(folder, 'base')
  await writeFile(path, randomFillSync(Buffer.allocUnsafe(FILE_MIB * MIB)))
  const epochs: Record<Mode, readonly Epoch[]> = { dirty: [], portable: [] }
  let accel = ''
  for (const mode of MODES) {
    progress(`${mode}: a file on disk and in the page cache`)
    const disks = [{ sizeMiB: FILE_MIB, base: { path, format: 'raw' } }] as const
    const rig = await CaptureRig.start({ capture: mode, ...size, disks })
    accel = rig.accel
    try {
      const first = await rig.epoch()
      const { pages } = await rig.tell('cache /dev/vda')
      if (pages !== FILE_MIB * 256) throw new Error(`the guest read ${pages} pages of ${FILE_MIB * 256}`)
      epochs[mode] = [first, await rig.epoch()]
    } finally {
      await rig.stop()
    }
  }
  const checks = MODES.flatMap(mode => {
    const [first, second] = epochs[mode]
    const cached = second?.shippedBytes ?? Number.NaN
    return [
      note(
        `${mode}: first epoch, with ${FILE_MIB} MiB of random bytes on disk: shipped`,
        (first?.shippedBytes ?? 0) / MIB,
        'MiB'
      ),
      note(`${mode}: pages of RAM that changed as the guest read them all`, second?.truth?.pages ?? 0),
      note(`${mode}: epoch after that: shipped`, cached / MIB, 'MiB'),
      atMost(`${mode}: shipped of a file on disk and cached, in all`, 1 + cached / (FILE_MIB * MIB), TIMES, 'times')
    ]
  })
  return { checks, details: { disks: epochs }, accel }
}
