/**
 * Groups that begin with images from elsewhere: exported files of one VM, or an epoch of a group in the second home. Each image goes
 * through a capture as QEMU's own would, so it is checked, sealed under this cluster's keys and spread over its peers as any.
 */
import { isDeepStrictEqual } from 'node:util'
import type { PeerId } from '../../protocols/core.ts'
import { type GroupSettings, importGroup, reserveGroup } from '../../protocols/epoch/record.ts'
import { disksOf, type GroupRecord, type VmSpec } from '../../protocols/group.ts'
import { placeable } from '../../protocols/membership/record.ts'
import type { BootFileAgent } from '../agents/boot-files.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { Hosting } from '../agents/group-agent.ts'
import type { MembershipAgent } from '../agents/membership.ts'
import type { Placing } from '../agents/placing.ts'
import type { StoragePeers } from '../agents/storage-peers.ts'
import type { EventFeed } from '../edge/events.ts'
import type { ImportedFile } from '../edge/image-view.ts'
import { DiapauseError, UsageError } from '../errors.ts'
import { olderMembers, requireKnown } from '../planning/older-members.ts'
import { placeVms, whyHomeless } from '../planning/placement.ts'
import type { BlockSource, DiskFile, FailureDetector, FrameLog, ImageManifest, ImageWorker, Restore } from '../ports.ts'
import { requireNoneLacking } from './missing-files.ts'
import { Reservation, type ReservationDeps, reservationLost } from './reservation.ts'

/** How images become files of QEMU's and back; a witness has none of it. */
export interface ImageFiles {
  /** As migration streams name it. */
  readonly machine: string
  /** What VMs boot from, which is no part of images. */
  readonly booting: BootFileAgent
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

export interface GroupImportDeps extends ReservationDeps {
  readonly self: PeerId
  readonly directory: GroupDirectory
  readonly membership: MembershipAgent
  readonly detector: FailureDetector
  readonly placing: Placing
  readonly storagePeers: Pick<StoragePeers, 'about'>
  readonly events: EventFeed
}

export interface GroupImportWish {
  readonly group: string
  readonly vms: readonly VmSpec[]
  /** Name or id of the peer that is to run them; absent: the cluster chooses. */
  readonly owner?: string | undefined
  readonly settings?: GroupSettings
  /** For people: where it comes from. */
  readonly from: string
}

/** What one VM begins with. */
export interface VmSource {
  readonly frames: FrameLog
  /** Its migration stream, then its disks. */
  readonly content: AsyncIterable<ImportedFile>
  /** Called in the end, whatever it was. */
  close(): Promise<void>
}

/** What a storage member has. */
export interface ImportTools {
  readonly hosting: Hosting
  readonly files: ImageFiles
}

export class GroupImport {
  readonly #deps: GroupImportDeps
  /** Groups that are being imported at this peer. */
  readonly #importing = new Set<string>()
  /** So that no two use one socket. No group has such a name. */
  #names = 0

  constructor(deps: GroupImportDeps) {
    this.#deps = deps
  }

  /** UsageError FILES_MISSING where a member that may run these VMs lacks what they boot from. Who does not answer is passed over. */
  async requireFiles(vms: readonly VmSpec[], { files }: ImportTools, hint = ''): Promise<void> {
    requireNoneLacking(this.#deps.membership.record(), await files.booting.lacking(vms, this.#hosts()), hint)
  }

  /**
   * One VM after the other is read and stored; then all of the group begins at once. Resolves when the record is decided.
   * GROUP_EXISTS, MEMBER_OLDER, FILES_MISSING, FILE_MISSING, RESERVATION_LOST, HOST_NOT_ALIVE, NO_HOST, IMPORT_…, and what `open` and storing an image reject with.
   */
  async run(
    wish: GroupImportWish,
    tools: ImportTools,
    open: (spec: VmSpec) => Promise<VmSource>
  ): Promise<GroupRecord> {
    const { directory, events } = this.#deps
    const { group, vms, from } = wish
    requireKnown(vms, olderMembers(this.#deps))
    const owners = this.#ownersOf(wish)
    await this.requireFiles(vms, tools)
    for (const vm of vms) await tools.files.booting.bootable(vm)
    if (this.#importing.has(group)) throw groupExists(group)
    this.#importing.add(group)
    let reservation: Reservation | undefined
    try {
      reservation = new Reservation(this.#deps, await this.#reserve(wish))
      const images: Record<string, string> = {}
      for (const spec of vms) {
        reservation.check()
        const source = await open(spec)
        try {
          images[spec.id] = await this.#store(spec, source, reservation.record, tools)
        } finally {
          await source.close()
        }
      }
      const record = await directory.change(group, importGroup(reservation.record, owners, images))
      if (record === null || !isDeepStrictEqual(record.committed?.images, images)) throw reservationLost(group)
      for (const { id: vm } of vms) events.emit('group.imported', { group, vm, owners, from })
      return record
    } finally {
      reservation?.end()
      this.#importing.delete(group)
    }
  }

  /** The floor is read after it was seen that there is no record. */
  async #reserve({ group, vms, settings }: GroupImportWish): Promise<GroupRecord> {
    const { directory, membership, self } = this.#deps
    const current = await directory.refresh(group)
    const floor = current === null ? (await membership.refresh()).groupFloor : null
    const reserve = reserveGroup(group, vms, self, floor, settings)
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
    spec: VmSpec,
    source: VmSource,
    { id: group, generation, lastEpoch }: GroupRecord,
    tools: ImportTools
  ): Promise<string> {
    const { hosting } = tools
    const { shape, shards } = hosting
    const { peers, holders } = this.#deps.placing.place(this.#hosts(), shape, group)
    const worker = await hosting.vm.openWorker(group, spec)
    try {
      const epoch = lastEpoch + 1
      const manifest = await this.#capture(worker, { spec, source, generation, epoch, holders, tools })
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
      readonly source: VmSource
      readonly generation: number
      readonly epoch: number
      readonly holders: readonly PeerId[]
      readonly tools: ImportTools
    }
  ): Promise<ImageManifest> {
    const { spec, source, generation, epoch, holders } = options
    const { hosting, files } = options.tools
    const socketPath = hosting.vm.path('capture', `imports ${++this.#names}`, spec.id)
    const capture = await worker.capture({ generation, epoch, socketPath, holders })
    const saved: { readonly file: DiskFile; remove(): Promise<void> }[] = []
    try {
      const names = [files.ramFile, ...disksOf(spec).map((_, disk) => files.diskFile(disk))]
      let next = 0
      for await (const { name, content: parts } of source.content) {
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
        source.frames,
        saved.map(({ file }) => file)
      )
    } catch (error) {
      await capture.cancel()
      throw error
    } finally {
      for (const { remove } of saved) await remove()
    }
  }

  #ownersOf({ owner, vms }: GroupImportWish): Readonly<Record<string, PeerId>> {
    const { directory, membership, storagePeers } = this.#deps
    const hosts = this.#hosts()
    const named = membership.record().members.find(({ id, name }) => id === owner || name === owner)
    if (owner !== undefined && (named === undefined || !hosts.includes(named.id))) {
      throw new DiapauseError('HOST_NOT_ALIVE', `${owner} is no living storage member; name another one, or none.`)
    }
    const kept = named === undefined ? {} : Object.fromEntries(vms.map(({ id }) => [id, named.id]))
    const facts = { hosts, groups: directory.all(), known: storagePeers.about(hosts) }
    const { owners, homeless } = placeVms(vms, kept, facts)
    if (homeless.length > 0) throw new DiapauseError('NO_HOST', whyHomeless(homeless, facts))
    return owners
  }

  /** Living members that VMs and shards may go to. */
  #hosts(): PeerId[] {
    const alive = new Set(this.#deps.detector.alive())
    return placeable(this.#deps.membership.record()).filter(id => alive.has(id))
  }
}

/** UsageError IMPORT_ACCEL where an image of `accel` cannot go on here. */
export function requireAccel(accel: 'kvm' | 'tcg', { vm }: Hosting): void {
  const here = vm.hypervisor.accel
  if (accel === here) return
  throw new UsageError(
    'IMPORT_ACCEL',
    `The image is of a VM under ${accel}, and VMs run under ${here} here: a processor's state fits only its own kind.`
  )
}

const groupExists = (group: string) =>
  new DiapauseError(
    'GROUP_EXISTS',
    `There is a group "${group}" already, or it was made meanwhile: choose another name; of several epochs in a second home, --group names the others.`
  )

const wrongFile = (found: string | undefined, wanted: string | undefined) =>
  new UsageError(
    'IMPORT_INVALID',
    `The image has ${found ?? 'no more files'} where ${wanted ?? 'no more files'} must come.`
  )
