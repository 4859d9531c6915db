/**
 * What it costs to capture a real VM, epoch after epoch. The guest is `load.c`: memory that is full of bytes that look like
 * memory's (its head says exactly which), and writes to it at a known rate. Each VM has a peer of its own (`capture-peer.ts`),
 * so that what that process takes is what its captures cost. Sections, any of which `--only` can choose:
 *
 *   loads     a first epoch and five more under three loads in both modes: pause, what really changed in RAM, bytes shipped,
 *             seconds, CPU seconds, peak memory of the peer; beside them QEMU's savevm, and zstd -1 of QEMU's whole stream
 *   sizes     dirty mode: a VM with four times the memory in use takes turns with the other under the same load; peak memory
 *   pauses    with 10,000 pages written a second
 *   rapid     five epochs a second for a minute
 *   pipeline  the recorded stream of a real VM, again and again: processor time of the worker's thread
 *   disks     a file that is on a disk and in the guest's page cache: bytes shipped
 *   neighbours  what two VMs of a group have both: bytes shipped by the second; no VM runs
 *
 * How much changed is counted without the product: RAM is read in the pause and compared byte by byte with what it was
 * (`capture-truth.ts`); the time that this takes is taken off pauses and seconds.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { messageOf, UsageError } from '../../node/errors.ts'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import { clock, quietLog } from '../contract/real-clock.ts'
import { atLeast, atMost, type Check, equal, note } from '../measure.ts'
import { measureDisks } from './capture-disks.ts'
import { measureNeighbours } from './capture-neighbours.ts'
import { feed } from './capture-pipeline.ts'
import { type Compared, compareWithQemu } from './capture-savevm.ts'
import {
  type LoadEpoch,
  measureLoads,
  measurePauses,
  measureRapid,
  measureSizes,
  median,
  MODES,
  type Progress,
  type Section,
  type Size,
  sizeOf
} from './capture-sections.ts'
import type { Measured, OptionValues } from './list.ts'

const SECTIONS = ['loads', 'sizes', 'pauses', 'rapid', 'pipeline', 'disks', 'neighbours'] as const
type SectionName = (typeof SECTIONS)[number]

const FILL_MIB = 1_024
/** The loads write to 200 of them. */
const LEAST_FILL_MIB = 256
const PASSES = 4
const SAVEVM_PART = 1 / 20
const PIPELINE_MB_PER_S = 600

export async function measureCapture(progress: Progress, options: OptionValues): Promise<Measured> {
  const size = readSize(options)
  const sections = readSections(options)
  const folder = await mkdtemp(join(tmpdir(), 'diapause-bench-'))
  const qemu = new Comparison(size, folder, progress)
  const found: Section[] = []
  try {
    for (const name of sections) found.push(await unlessFailed(name, measure(name, { size, progress, qemu, folder })))
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
  const details = Object.assign({}, { size }, ...found.map(each => each.details)) as Record<string, unknown>
  return {
    checks: found.flatMap(({ checks }) => checks),
    details,
    accel: found.find(({ accel }) => accel !== '')?.accel ?? '',
    text: found.flatMap(({ text = [] }) => text)
  }
}

/** What the others have found is worth knowing, too. */
async function unlessFailed(name: SectionName, measuring: Promise<Section>): Promise<Section> {
  try {
    return await measuring
  } catch (error) {
    return { checks: [equal(`${name}: error`, messageOf(error), '')], details: {}, accel: '' }
  }
}

interface Parts {
  readonly size: Size
  readonly progress: Progress
  readonly qemu: Comparison
  readonly folder: string
}

async function measure(name: SectionName, { size, progress, qemu, folder }: Parts): Promise<Section> {
  if (name === 'sizes') return await measureSizes(size, progress)
  if (name === 'pauses') return await measurePauses(size, progress)
  if (name === 'rapid') return await measureRapid(size, progress)
  if (name === 'disks') return await measureDisks(size, folder, progress)
  if (name === 'neighbours') return await measureNeighbours(folder, progress)
  if (name === 'pipeline') return await measurePipeline({ size, progress, qemu, folder })
  const loads = await measureLoads(size, progress)
  const { compared } = await qemu.result()
  const checks = [...loads.checks, ...comparedChecks(loads.epochs, compared)]
  return { ...loads, checks, details: { ...loads.details, compared } }
}

function comparedChecks(
  epochs: readonly LoadEpoch[],
  { saves, streamBytes, zstdBytes, zstdSeconds }: Compared
): Check[] {
  const pauseMs = Math.min(...saves.map(save => save.pauseMs))
  const worst = (mode: string): number => {
    const own = epochs.filter(each => each.mode === mode)
    const loads = [...new Set(own.map(({ load }) => load))]
    return Math.max(...loads.map(load => median(own.filter(each => each.load === load).map(each => each.pauseMs))))
  }
  return [
    note('savevm: pause', pauseMs, 'ms'),
    note('savevm: bytes', (saves[0]?.bytes ?? Number.NaN) / 1e6, 'MB'),
    note('zstd -1 of the whole stream: bytes', zstdBytes / 1e6, 'MB'),
    note('zstd -1 of the whole stream: part', zstdBytes / streamBytes),
    note('zstd -1 of the whole stream: seconds', zstdSeconds, 's'),
    ...MODES.map(mode =>
      atMost(`${mode}: pause (median of the worst load), part of savevm's`, worst(mode) / pauseMs, SAVEVM_PART, '')
    )
  ]
}

async function measurePipeline({ size, progress, qemu, folder }: Parts): Promise<Section> {
  const { accel, compared, streamPath } = await qemu.result()
  progress('feeding the recorded stream')
  const passes = await feed({ accel, memoryMiB: size.memoryMiB, folder, streamPath, passes: PASSES })
  const rates = passes.map(({ cpuSeconds }) => compared.streamBytes / 1e6 / cpuSeconds)
  const checks = [
    atLeast('pipeline, pages unchanged', median(rates.slice(1)), PIPELINE_MB_PER_S, 'MB/s of stream a core'),
    note('pipeline, pages new', rates[0] ?? Number.NaN, 'MB/s of stream a core')
  ]
  return { checks, details: { pipeline: passes, streamBytes: compared.streamBytes }, accel }
}

/** QEMU by itself: measured once, for all sections that need it. */
class Comparison {
  readonly #size: Size
  readonly #folder: string
  readonly #progress: Progress
  #result: ReturnType<Comparison['result']> | undefined

  constructor(size: Size, folder: string, progress: Progress) {
    this.#size = size
    this.#folder = folder
    this.#progress = progress
  }

  result(): Promise<{ accel: 'kvm' | 'tcg'; compared: Compared; streamPath: string }> {
    this.#result ??= this.#measure()
    return this.#result
  }

  async #measure() {
    this.#progress('QEMU by itself')
    const folder = this.#folder
    const settings = { qemu: 'qemu-system-x86_64', accel: 'auto', trialMs: 5_000, ramDir: '/dev/shm' } as const
    const portable = { ...settings, capture: 'portable' } as const
    const peer = `bench-${process.pid}`
    const { accel } = await createQemuHypervisor({ settings: portable, peer, runDir: folder, log: quietLog, clock })
    const streamPath = join(folder, 'recorded')
    const compared = await compareWithQemu({ accel, ...this.#size, folder, streamPath }, this.#progress)
    return { accel, compared, streamPath }
  }
}

function readSize({ fill = `${FILL_MIB}` }: OptionValues): Size {
  if (/^\d{3,5}$/.test(fill) && Number(fill) >= LEAST_FILL_MIB) return sizeOf(Number(fill))
  throw new UsageError('BENCH_USAGE', `--fill takes MiB, from ${LEAST_FILL_MIB} on, not ${JSON.stringify(fill)}`)
}

function readSections({ only = SECTIONS.join(',') }: OptionValues): SectionName[] {
  const asked = only.split(',')
  const unknown = asked.find(name => !SECTIONS.some(section => section === name))
  if (unknown === undefined) return SECTIONS.filter(section => asked.includes(section))
  throw new UsageError('BENCH_USAGE', `--only takes some of ${SECTIONS.join(',')}, not ${JSON.stringify(unknown)}`)
}
