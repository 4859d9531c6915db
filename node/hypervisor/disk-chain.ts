/**
 * The disks of a VM as QEMU has them, as pure plans. Each disk is a chain of nodes,
 *
 *     bottom ← local ← layers that were frozen at cuts, oldest first ← active
 *
 * and a throttle node without limits on top, which the device uses. That top is there for the sake of jobs: QEMU lets no
 * snapshot be taken of a node that a job is given as its device, and a job that merges layers is given the top.
 *
 * Bottom: a base, which nobody writes; or what is served over NBD, until all of it has been streamed into `local`; or
 * nothing. `local` holds what was merged; nobody reads layers that are merged.
 */
import type { DiskFile, DiskStart } from '../ports.ts'
import { type DiskSpec, disksOf, type VmSpec } from '../../protocols/group.ts'

const MIB = 1_048_576
/** Layers of a disk that make it more urgent to have fewer than to stream: each read looks into all of them. A guess. */
const MANY_LAYERS = 8
/** Half of what a gigabit link carries: the cluster's other traffic is the epochs. A guess. */
const STREAM_BYTES_PER_SECOND = 64 * MIB

/** What QMP's blockdev-add takes. */
export type BlockNode = Readonly<Record<string, unknown>>

export interface Layer {
  readonly node: string
  readonly path: string
}

/** A job of QEMU's on a disk. */
export type DiskJob =
  | { readonly kind: 'merge'; readonly disk: number; readonly top: Layer; readonly arguments: BlockNode }
  /** Of layers that are still needed, but not each by itself: `base` becomes all of them. */
  | {
      readonly kind: 'join'
      readonly disk: number
      readonly base: Layer
      readonly top: Layer
      readonly arguments: BlockNode
    }
  | { readonly kind: 'stream'; readonly disk: number; readonly arguments: BlockNode }

export class DiskChain {
  readonly disk: number
  readonly diskBytes: number
  readonly #folder: string
  readonly #spec: DiskSpec
  #start: DiskStart
  readonly #local: Layer
  #frozen: Layer[] = []
  readonly #released = new Set<Layer>()
  /** The last of the frozen layers that may become one. */
  #joinable: Layer | undefined
  #active: Layer
  #next: Layer | undefined
  #made = 0

  constructor(disk: number, { spec, start, folder }: { spec: DiskSpec; start: DiskStart; folder: string }) {
    this.disk = disk
    this.diskBytes = spec.sizeMiB * MIB
    this.#folder = folder
    this.#spec = spec
    this.#start = start
    this.#local = this.#layer('local')
    this.#active = this.#layer(++this.#made)
  }

  /** Layers that must be there when QEMU starts. */
  get first(): readonly Layer[] {
    return [this.#local, this.#active]
  }

  /** How many layers a read may look into, besides the bottom. */
  get length(): number {
    return this.#frozen.length + 2
  }

  /** On the command line, in this order. */
  get nodes(): readonly BlockNode[] {
    const bottom = this.#bottom()
    return [
      ...(bottom ? [bottom] : []),
      { ...layerNode(this.#local, bottom ? this.#name('bottom') : null), 'read-only': true },
      layerNode(this.#active, this.#local.node),
      { driver: 'throttle', 'node-name': this.top, 'throttle-group': THROTTLE_GROUP, file: this.#active.node }
    ]
  }

  /** What the device and jobs are given. */
  get top(): string {
    return `d${this.disk}`
  }

  /** Where the bottom is still read over NBD: its node. */
  get remote(): string | undefined {
    return this.#start.kind === 'nbd' ? this.#name('bottom') : undefined
  }

  /** The layer that is written after the next cut; undefined where it is there already. `added` tells that it is. */
  wanted(): { readonly layer: Layer; readonly node: BlockNode } | undefined {
    if (this.#next) return undefined
    const layer = this.#layer(this.#made + 1)
    return { layer, node: layerNode(layer, null) }
  }

  added(layer: Layer): void {
    this.#made++
    this.#next = layer
  }

  /** An action of QMP's `transaction`. Only after `added`. */
  snapshot(): BlockNode {
    if (!this.#next) throw new TypeError('there is no layer to go on with')
    return { type: 'blockdev-snapshot', data: { node: this.#active.node, overlay: this.#next.node } }
  }

  /** The snapshot was taken. */
  turned(): void {
    if (!this.#next) throw new TypeError('there is no layer to go on with')
    this.#frozen.push(this.#active)
    this.#active = this.#next
    this.#next = undefined
  }

  /** Frozen layers that are not released, oldest first. */
  frozen(): DiskFile[] {
    return this.#frozen
      .filter(layer => !this.#released.has(layer))
      .map(({ path }) => ({ disk: this.disk, path, format: 'qcow2' }))
  }

  /** Nobody needs these files by themselves any more. Others than frozen ones do not count. */
  release(paths: ReadonlySet<string>): void {
    for (const layer of this.#frozen) if (paths.has(layer.path)) this.#released.add(layer)
  }

  /** Until `apart` nobody reads the frozen layers, and no image will have ended with one of them: they may become one. */
  join(): void {
    this.#joinable = this.#frozen.at(-1)
  }

  apart(): void {
    this.#joinable = undefined
  }

  /** What is to be done next; undefined: nothing. */
  job(): DiskJob | undefined {
    const released = this.#releasedLayers()
    const top = released.at(-1)
    const join = this.#joinJob()
    if (this.remote !== undefined && released.length < MANY_LAYERS && !join) {
      return {
        kind: 'stream',
        disk: this.disk,
        arguments: { device: this.#local.node, speed: STREAM_BYTES_PER_SECOND }
      }
    }
    return top ? { kind: 'merge', disk: this.disk, top, arguments: this.#commit(top, this.#local) } : join
  }

  #joinJob(): DiskJob | undefined {
    const needed = this.#frozen.slice(this.#releasedLayers().length)
    const layers = needed.slice(0, this.#joinable ? needed.indexOf(this.#joinable) + 1 : 0)
    const [base, top] = [layers[0], layers.at(-1)]
    if (!base || !top || layers.length < MANY_LAYERS) return undefined
    return { kind: 'join', disk: this.disk, base, top, arguments: this.#commit(top, base) }
  }

  /** The name of the backing file that QEMU would write into the layer above describes the whole chain, and may be too long. */
  #commit(top: Layer, base: Layer): BlockNode {
    return { device: this.top, 'top-node': top.node, 'base-node': base.node, 'backing-file': 'local' }
  }

  /** The job is done: layers that are in no chain any more, in the order in which QEMU lets their nodes be removed. */
  done(job: DiskJob): readonly Layer[] {
    if (job.kind === 'stream') {
      this.#start = { kind: 'new' }
      return []
    }
    const from = job.kind === 'join' ? this.#frozen.indexOf(job.base) + 1 : 0
    const merged = this.#frozen.splice(from, this.#frozen.indexOf(job.top) + 1 - from)
    for (const layer of merged) this.#released.delete(layer)
    return merged.reverse()
  }

  /** From the oldest on: a layer that is still needed ends them. */
  #releasedLayers(): Layer[] {
    const needed = this.#frozen.findIndex(layer => !this.#released.has(layer))
    return needed < 0 ? [...this.#frozen] : this.#frozen.slice(0, needed)
  }

  #bottom(): BlockNode | undefined {
    const common = { 'node-name': this.#name('bottom'), 'read-only': true }
    if (this.#start.kind === 'nbd') {
      const { socketPath, exportName } = this.#start
      return { driver: 'nbd', ...common, server: { type: 'unix', path: socketPath }, export: exportName }
    }
    const { base } = this.#spec
    if (!base) return undefined
    const file = { driver: 'file', filename: base.path, 'read-only': true }
    // A base stands for itself: what it says of a backing file is not followed (disk-layers.ts refuses it).
    return { driver: base.format, ...common, file, ...(base.format === 'qcow2' ? { backing: null } : {}) }
  }

  #layer(name: string | number): Layer {
    return { node: this.#name(name), path: `${this.#folder}/${this.#name(name)}` }
  }

  #name(name: string | number): string {
    return `d${this.disk}.${name}`
  }
}

const THROTTLE_GROUP = 'disks'

/**
 * A flush of the guest's goes as far as the layer's file in the host's page cache, and not to the host's disk (no-flush): a
 * layer is read by this QEMU and by this peer only, and is of no use once one of them is gone, because a VM then goes on
 * from shards. QEMU still writes its own caches to the file then, so that whoever reads a frozen layer sees all of it.
 * `aio=threads` is what works with the page cache.
 */
const layerNode = ({ node, path }: Layer, backing: string | null): BlockNode => ({
  driver: 'qcow2',
  'node-name': node,
  backing,
  discard: 'unmap',
  cache: { direct: false, 'no-flush': true },
  file: { driver: 'file', filename: path, aio: 'threads', discard: 'unmap', cache: { direct: false, 'no-flush': true } }
})

/**
 * Arguments for all disks of a VM; none where it has none. What the guest sees of a disk is the device: a write cache that it
 * may have flushed, blocks of 4 KiB (sectors of 512 bytes), discards. A read or write that fails stops the VM, and the
 * driver ends it: an error told to the guest would make other disks of it than the image's.
 */
export function diskArguments(chains: readonly DiskChain[], { kernel }: Pick<VmSpec, 'kernel'>): string[] {
  if (chains.length === 0) return []
  // The BIOS asks for it and images do not hold it.
  const boots = (chain: DiskChain): string => (kernel === undefined && chain.disk === 0 ? ',bootindex=0' : '')
  const device = (chain: DiskChain): string =>
    `virtio-blk-pci,id=disk${chain.disk},drive=${chain.top},write-cache=on,physical_block_size=4096,` +
    `discard_granularity=4096,werror=stop,rerror=stop${boots(chain)}`
  return [
    ['-object', `throttle-group,id=${THROTTLE_GROUP}`],
    ...chains.flatMap(({ nodes }) => nodes.map(node => ['-blockdev', JSON.stringify(node)])),
    ...chains.map(chain => ['-device', device(chain)])
  ].flat()
}

/** One chain for each disk of the specification, which may have none. */
export const chainsOf = (spec: VmSpec, folder: string, starts: readonly DiskStart[]): DiskChain[] =>
  disksOf(spec).map(
    (disk, index) => new DiskChain(index, { spec: disk, start: starts[index] ?? { kind: 'new' }, folder })
  )
