/** Images as files: the API's `ImageView` over agents, shards and image workers. */
import { randomUUID } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { holdEpoch, releaseEpoch } from '../protocols/epoch/kept.ts'
import { importGroup, reserveGroup } from '../protocols/epoch/record.ts'
import { disksOf, type GroupRecord, type VmSpec } from '../protocols/group.ts'
import type { PeerId } from '../protocols/core.ts'
import { memberById, placeable } from '../protocols/membership/record.ts'
import type { GroupDirectory } from './agents/directory.ts'
import type { Hosting } from './agents/group-agent.ts'
import type { MembershipAgent } from './agents/membership.ts'
import type { EventFeed } from './edge/events.ts'
import type {
  ExportedFile,
  ExportedImage,
  ExportWish,
  ImageAbout,
  ImageView,
  ImportedFile,
  ImportWish
} from './edge/image-view.ts'
import { kept } from './epoch-operations.ts'
import { DiapauseError, messageOf, UsageError } from './errors.ts'
import { planHolders, withinReach } from './planning/holders.ts'
import { planOwners } from './planning/placement.ts'
import type {
  BlockSource,
  DiskFile,
  FailureDetector,
  FrameLog,
  ImageManifest,
  ImageWorker,
  Log,
  Restore
} from './ports.ts'

/** How images become files of QEMU's and back; a witness has none of it. */
export interface ImageFiles {
  /** As migration streams name it. */
  readonly machine: string
  /** The file's name in the script's folder. */
  readonly ramFile: string
  script(options: { accel: 'kvm' | 'tcg'; spec: VmSpec; title: string }): string
  diskFile(disk: number): string
  exportDisk(disk: BlockSource): AsyncGenerator<Uint8Array>
  /** Keeps a disk's file for a capture. */
  saveDisk(
    parts: AsyncIterable<Uint8Array>,
    diskBytes: number
  ): Promise<{ readonly path: string; remove(): Promise<void> }>
  exportRam(restore: Restore, socketPath: string): AsyncGenerator<Uint8Array>
  importRam(
    socketPath: string,
    parts: AsyncIterable<Uint8Array>,
    rules: { memoryMiB: number; machineType: string }
  ): Promise<void>
}

export interface ImageOperationsDeps {
  readonly self: PeerId
  readonly directory: GroupDirectory
  readonly membership: MembershipAgent
  readonly detector: FailureDetector
  readonly reached: (peer: PeerId) => boolean
  readonly events: EventFeed
  readonly log: Log
  readonly hosting: Hosting | undefined
  readonly files: ImageFiles | undefined
}

const NO_FRAMES: FrameLog = { frames: 0, bytes: 0, async *pieces() {} }

export class ImageOperations implements ImageView {
  readonly #deps: ImageOperationsDeps
  /** So that no two use one socket. No group has such a name. */
  #names = 0
  /** What an earlier run of this peer held is over. */
  readonly #run = randomUUID()
  /** Groups that are being imported at this peer. */
  readonly #importing = new Set<string>()

  constructor(deps: ImageOperationsDeps) {
    this.#deps = deps
  }

  async export({ group, vm, epoch }: ExportWish): Promise<ExportedImage> {
    const { hosting, files } = this.#hosting()
    const record = await this.#deps.directory.refresh(group)
    if (record === null || record.removed) throw unknownGroup(group)
    const spec = record.vms.find(each => each.id === vm)
    if (spec === undefined) throw new DiapauseError('VM_UNKNOWN', `Group "${group}" has no VM "${vm}".`)
    const found = kept(record, epoch ?? record.committed?.epoch)
    const hash = found.images[vm] as string // every epoch has an image of every VM
    const manifest = await hosting.readManifest(hash)
    const about: ImageAbout = {
      group,
      epoch: found.epoch,
      generation: manifest.generation,
      accel: manifest.accel,
      machine: files.machine,
      hypervisor: hosting.vm.hypervisor.description,
      spec
    }
    return { about, files: () => this.#files(about, manifest) }
  }

  async *#files(about: ImageAbout, manifest: ImageManifest): AsyncGenerator<ExportedFile> {
    const { hosting, files } = this.#hosting()
    const { spec, group, epoch, accel } = about
    const title = `VM ${spec.id} of group ${group} as it was at epoch ${epoch}`
    yield { name: 'run.sh', executable: true, content: [Buffer.from(files.script({ accel, spec, title }))] }
    const release = await this.#hold(about)
    let worker: ImageWorker | undefined
    try {
      worker = await hosting.vm.openWorker(group, spec)
      const restore = await worker.restore(manifest)
      const { pages, pagesNonZero } = manifest.stats
      const expectedBytes = pagesNonZero * 4104 + (pages - pagesNonZero) * 9
      const content = files.exportRam(restore, this.#socketPath(hosting, spec.id))
      yield { name: files.ramFile, expectedBytes, content }
      for (const [i, disk] of restore.disks.entries()) {
        yield { name: files.diskFile(i), expectedBytes: disk.bytes, content: files.exportDisk(disk) }
      }
    } finally {
      await worker?.close()
      await release()
    }
    this.#deps.events.emit('image.exported', { group, vm: spec.id, epoch })
  }

  /** The epoch's shards are kept, although others are committed, until what this resolves with is called. */
  async #hold({ group, epoch, spec }: ImageAbout): Promise<() => Promise<void>> {
    const { directory, self, log } = this.#deps
    const by = `${self} ${this.#run} ${++this.#names}`
    const died = (other: string): boolean => other.startsWith(`${self} `) && !other.startsWith(`${self} ${this.#run} `)
    const now = await directory.change(group, holdEpoch(epoch, spec.id, by, died))
    if (now === null || now.removed) throw unknownGroup(group)
    kept(now, epoch)
    if (now.held?.some(each => each.by === by) !== true) throw busy(group)
    return async () => {
      try {
        await directory.change(group, releaseEpoch(by))
      } catch (error) {
        log.warn(
          { group, epoch, error: messageOf(error) },
          'an exported epoch stays until the next export of its group'
        )
      }
    }
  }

  async import(wish: ImportWish, content: AsyncIterable<ImportedFile>): Promise<GroupRecord> {
    const { hosting } = this.#hosting()
    const { directory } = this.#deps
    const { group, about } = wish
    const { spec } = about
    const { accel } = hosting.vm.hypervisor
    if (about.accel !== accel) {
      throw new UsageError(
        'IMPORT_ACCEL',
        `The image is of a VM under ${about.accel}, and VMs run under ${accel} here: a processor's state fits only its own kind.`
      )
    }
    const owners = this.#ownersOf(wish)
    if (this.#importing.has(group)) throw groupExists(group)
    this.#importing.add(group)
    try {
      const reserved = await this.#reserve(group, spec)
      const images = { [spec.id]: await this.#store(wish, content, reserved) }
      const record = await directory.change(group, importGroup(reserved, owners, images))
      if (record === null || record.committed?.images[spec.id] !== images[spec.id]) throw groupExists(group)
      const from = `${about.group} epoch ${about.epoch}`
      this.#deps.events.emit('group.imported', { group, vm: spec.id, owners, from })
      return record
    } finally {
      this.#importing.delete(group)
    }
  }

  /** The floor is read after it was seen that there is no record. */
  async #reserve(group: string, spec: VmSpec): Promise<GroupRecord> {
    const { directory, membership, self } = this.#deps
    const current = await directory.refresh(group)
    const floor = current === null ? (await membership.refresh()).groupFloor : null
    const reserve = reserveGroup(group, [spec], self, floor)
    let ours: GroupRecord | undefined
    const record = await directory.change(group, now => {
      ours = reserve(now)
      return ours
    })
    // By content: another peer may have taken it at the same time, or after us.
    if (record === null || ours === undefined || !isDeepStrictEqual(record, ours)) throw groupExists(group)
    return record
  }

  /** The image in the shards, committed by nobody yet; the hash of its manifest. */
  async #store(
    { group, about: { spec } }: ImportWish,
    content: AsyncIterable<ImportedFile>,
    { generation, lastEpoch }: GroupRecord
  ): Promise<string> {
    const { hosting, files } = this.#hosting()
    const { shape, shards } = hosting
    const peers = withinReach(this.#hosts(), this.#deps.reached, shape.k, shape.m)
    const holders = planHolders(peers, shape.k, shape.m, 0)
    const worker = await hosting.vm.openWorker(group, spec)
    try {
      const manifest = await this.#capture(worker, {
        spec,
        content,
        generation,
        epoch: lastEpoch + 1,
        holders,
        files,
        hosting
      })
      const { hash, objects } = hosting.encodeManifest(manifest)
      await Promise.all(objects.map(each => shards.putManifest(each.hash, each.bytes, peers)))
      return hash
    } finally {
      await worker.close()
    }
  }

  async #capture(
    worker: ImageWorker,
    options: {
      readonly spec: VmSpec
      readonly content: AsyncIterable<ImportedFile>
      readonly generation: number
      readonly epoch: number
      readonly holders: readonly PeerId[]
      readonly files: ImageFiles
      readonly hosting: Hosting
    }
  ): Promise<ImageManifest> {
    const { spec, content, generation, epoch, holders, files, hosting } = options
    const socketPath = this.#socketPath(hosting, spec.id)
    const capture = await worker.capture({ generation, epoch, socketPath, holders })
    const saved: { readonly file: DiskFile; remove(): Promise<void> }[] = []
    try {
      const names = [files.ramFile, ...disksOf(spec).map((_, disk) => files.diskFile(disk))]
      let next = 0
      for await (const { name, content: parts } of content) {
        if (name !== names[next]) throw wrongFile(name, names[next])
        const disk = next++ - 1
        const sizeMiB = disksOf(spec)[disk]?.sizeMiB
        if (sizeMiB === undefined) {
          await files.importRam(socketPath, parts, { memoryMiB: spec.memoryMiB, machineType: files.machine })
        } else {
          const { path, remove } = await files.saveDisk(parts, sizeMiB * 2 ** 20)
          saved.push({ file: { disk, path, format: 'qcow2' }, remove })
        }
      }
      if (next < names.length) throw wrongFile(undefined, names[next])
      return await capture.finish(
        NO_FRAMES,
        saved.map(({ file }) => file)
      )
    } catch (error) {
      await capture.cancel()
      throw error
    } finally {
      for (const { remove } of saved) await remove()
    }
  }

  #socketPath({ vm }: Hosting, id: string): string {
    return vm.path('capture', `files ${++this.#names}`, id)
  }

  #ownersOf({ owner, about: { spec } }: ImportWish): Readonly<Record<string, PeerId>> {
    const { directory, membership } = this.#deps
    const hosts = this.#hosts()
    const named = membership.record().members.find(({ id, name }) => id === owner || name === owner)
    if (owner !== undefined && (named === undefined || !hosts.includes(named.id))) {
      throw new DiapauseError('HOST_NOT_ALIVE', `${owner} is no living storage member; name another one, or none.`)
    }
    const kept = named === undefined ? {} : { [spec.id]: named.id }
    const plan = planOwners([spec], kept, { hosts, groups: directory.all().filter(({ removed }) => !removed) })
    if (plan === undefined) throw new DiapauseError('NO_HOST', 'No living member can run VMs.')
    return plan.owners
  }

  /** Living members that VMs and shards may go to. */
  #hosts(): PeerId[] {
    const alive = new Set(this.#deps.detector.alive())
    return placeable(this.#deps.membership.record()).filter(id => alive.has(id))
  }

  #hosting(): { readonly hosting: Hosting; readonly files: ImageFiles } {
    const { hosting, files, membership, self } = this.#deps
    if (hosting !== undefined && files !== undefined) return { hosting, files }
    const name = memberById(membership.record(), self)?.name ?? self
    throw new DiapauseError('NOT_STORAGE', `${name} is a witness, which has no images: ask a storage member.`)
  }
}

const unknownGroup = (group: string) =>
  new DiapauseError('GROUP_UNKNOWN', `There is no group "${group}" in this cluster.`)

const busy = (group: string) =>
  new DiapauseError('EPOCHS_READ', `As many epochs of group "${group}" are read as can be at a time: try again later.`)

const groupExists = (group: string) =>
  new DiapauseError(
    'GROUP_EXISTS',
    `There is a group "${group}" already, or it was made meanwhile: choose another name.`
  )

const wrongFile = (found: string | undefined, wanted: string | undefined) =>
  new UsageError(
    'IMPORT_INVALID',
    `The image has ${found ?? 'no more files'} where ${wanted ?? 'no more files'} must come.`
  )
