/** Images as files: the API's `ImageView` over agents, shards and image workers. */
import type { GroupRecord } from '../../protocols/group.ts'
import type { PeerId } from '../../protocols/core.ts'
import { memberById } from '../../protocols/membership/record.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { EpochReaders } from '../agents/epoch-readers.ts'
import type { Hosting } from '../agents/group-agent.ts'
import type { MembershipAgent } from '../agents/membership.ts'
import type { EventFeed } from '../edge/events.ts'
import type {
  ExportedFile,
  ExportedImage,
  ExportWish,
  ImageAbout,
  ImageView,
  ImportedFile,
  ImportWish
} from '../edge/image-view.ts'
import { DiapauseError } from '../errors.ts'
import { type GroupImport, type ImageFiles, requireAccel } from './group-import.ts'
import type { FrameLog, ImageManifest, ImageWorker, Log } from '../ports.ts'
import { keptEpoch } from '../planning/retention-policy.ts'

export interface ImageOperationsDeps {
  readonly self: PeerId
  readonly directory: GroupDirectory
  readonly membership: MembershipAgent
  readonly events: EventFeed
  readonly log: Log
  readonly hosting: Hosting | undefined
  readonly files: ImageFiles | undefined
  readonly imports: GroupImport
  readonly readers: Pick<EpochReaders, 'hold'>
}

const NO_FRAMES: FrameLog = { frames: 0, bytes: 0, async *pieces() {} }

export class ImageOperations implements ImageView {
  readonly #deps: ImageOperationsDeps
  /** So that no two use one socket. No group has such a name. */
  #names = 0

  constructor(deps: ImageOperationsDeps) {
    this.#deps = deps
  }

  async export({ group, vm, epoch }: ExportWish): Promise<ExportedImage> {
    const { hosting, files } = this.#hosting()
    const record = await this.#deps.directory.refresh(group)
    if (record === null || record.removed) throw unknownGroup(group)
    const spec = record.vms.find(each => each.id === vm)
    if (spec === undefined) throw new DiapauseError('VM_UNKNOWN', `Group "${group}" has no VM "${vm}".`)
    const found = keptEpoch(record, epoch ?? record.committed?.epoch)
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
    const { record, release } = await this.#deps.readers.hold(group, epoch, spec.id)
    if (release !== undefined) return release
    if (record === null || record.removed) throw unknownGroup(group)
    keptEpoch(record, epoch)
    throw busy(group)
  }

  async import(wish: ImportWish, content: AsyncIterable<ImportedFile>): Promise<GroupRecord> {
    const { hosting, files } = this.#hosting()
    const { group, about } = wish
    const { spec } = about
    requireAccel(about.accel, hosting)
    const from = `${about.group} epoch ${about.epoch}`
    const source = { frames: NO_FRAMES, content, close: async () => {} }
    const { owner } = wish
    return await this.#deps.imports.run({ group, vms: [spec], owner, from }, { hosting, files }, () =>
      Promise.resolve(source)
    )
  }

  #socketPath({ vm }: Hosting, id: string): string {
    return vm.path('capture', `files ${++this.#names}`, id)
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
