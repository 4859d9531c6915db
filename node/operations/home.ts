/** What an operator can see and ask of the second home: the API's `HomeView` over its agent, and restores out of it. */
import { contentName, renamed } from '../../protocols/boot-files.ts'
import type { PeerId } from '../../protocols/core.ts'
import { disksOf, type GroupRecord, type VmSpec } from '../../protocols/group.ts'
import { setRecovery } from '../../protocols/membership/changes.ts'
import { memberById } from '../../protocols/membership/record.ts'
import {
  parseRecoveryKey,
  recoveryName,
  type RecoveryNote,
  recoveryPublic
} from '../../protocols/membership/recovery.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { Hosting } from '../agents/group-agent.ts'
import type { Keepers } from '../agents/keepers.ts'
import type { MembershipAgent } from '../agents/membership.ts'
import type { SecondHomeAgent } from '../agents/second-home.ts'
import type { EventFeed } from '../edge/events.ts'
import type {
  HomeCopied,
  HomePlace,
  HomePushWish,
  HomeRestoreWish,
  HomeStatus,
  HomeVerifyWish,
  HomeView,
  RecoveryStatus,
  RecoveryWish
} from '../edge/home-view.ts'
import type { ImportedFile } from '../edge/image-view.ts'
import { DiapauseError, UsageError } from '../errors.ts'
import { type GroupImport, type ImageFiles, requireAccel, type VmSource } from './group-import.ts'
import type {
  FrameLog,
  HomeCheck,
  HomeEpoch,
  HomeEpochName,
  HomeListing,
  ImageWorker,
  Log,
  OpenedEpoch,
  Restore,
  SecondHome
} from '../ports.ts'

/** In-flight frames of an image that are taken along: they are in memory. More of them are lost, as on any network. A guess. */
const MAX_FRAME_BYTES = 64 << 20

/** A cluster that lives copies a group that has new epochs once an interval, by default an hour (`home.intervalMs`). */
const YOUNG_MS = 3_600_000

/** What a storage member has for it. */
export interface HomeTools {
  readonly hosting: Hosting
  readonly files: ImageFiles
  /** Undefined: the config has no second home. */
  readonly configured: { readonly home: SecondHome; readonly agent: SecondHomeAgent } | undefined
  /** HOME_URL, HOME_CREDENTIALS. */
  open(place: HomePlace): SecondHome
  /** Reads images of an opened epoch. */
  openReader(spec: VmSpec, epoch: OpenedEpoch): Promise<ImageWorker>
}

export interface HomeOperationsDeps {
  readonly self: PeerId
  readonly directory: GroupDirectory
  readonly membership: MembershipAgent
  readonly keepers: Pick<Keepers, 'of'>
  readonly events: EventFeed
  readonly log: Log
  readonly imports: GroupImport
  /** Undefined at a witness. */
  readonly tools: HomeTools | undefined
  wallMs(): number
}

export class HomeOperations implements HomeView {
  readonly #deps: HomeOperationsDeps
  /** So that no two use one socket. No group has such a name. */
  #names = 0

  constructor(deps: HomeOperationsDeps) {
    this.#deps = deps
  }

  status(): HomeStatus {
    const { self, directory, membership, keepers, tools } = this.#deps
    const record = membership.record()
    const groups = directory.all().filter(({ removed }) => !removed)
    return {
      url: tools?.configured?.home.url ?? null,
      recovery: record.recovery === undefined ? null : statusOf(record.recovery),
      groups: groups.map(group => {
        // Nobody is where all its hosts are dead and it is to run: the first of them, when it is back.
        const keeper = keepers.of(group) ?? group.owners[group.vms[0]?.id ?? ''] ?? ''
        return {
          group: group.id,
          copier: memberById(record, keeper)?.name ?? keeper,
          here: keeper === self,
          ...tools?.configured?.agent.copiesOf(group.id)
        }
      })
    }
  }

  async push({ group, all }: HomePushWish): Promise<HomeCopied> {
    return await this.#configured().agent.push(group, all)
  }

  async list(place: HomePlace): Promise<HomeListing> {
    return await this.#home(place).epochs()
  }

  async verify({ deep, ...wish }: HomeVerifyWish): Promise<HomeCheck & { readonly of: HomeEpoch }> {
    const home = this.#home(wish)
    const cluster = wish.cluster ?? (wish.from === undefined ? this.#deps.membership.record().id : undefined)
    const listing = await home.epochs()
    const [of] = newestOf(listing.epochs, { ...wish, cluster })
    if (of === undefined) throw noEpoch(home, wish)
    if (wish.epoch === undefined) refuseDamaged(listing, [of])
    return { of, ...(await home.verify(of, deep)) }
  }

  async restore(wish: HomeRestoreWish): Promise<readonly HomeEpoch[]> {
    const secret = parseRecoveryKey(wish.recoveryKey)
    const home = this.#home(wish)
    const name = recoveryName(recoveryPublic(secret))
    const listing = await home.epochs()
    const found = newestOf(
      listing.epochs.filter(each => each.recovery === name),
      wish
    )
    if (found.length === 0) throw noEpoch(home, wish, name)
    if (wish.epoch === undefined) refuseDamaged(listing, found)
    const twice = found.find(({ group }, i) => found.findIndex(each => each.group === group) !== i)
    if (twice !== undefined) {
      const clusters = found.flatMap(each => (each.group === twice.group ? [each.cluster] : []))
      throw new UsageError(
        'HOME_CLUSTER',
        `several clusters have a group "${twice.group}" in ${home.url}: say which with --cluster (${clusters.join(', ')})`
      )
    }
    if (!wish.force) refuseYoung(found, this.#deps.membership.record().id, this.#deps.wallMs())
    const opened: OpenedEpoch[] = []
    for (const epoch of found) opened.push(await home.open(epoch, secret))
    await this.#requireAll(opened)
    const done: string[] = []
    for (const epoch of opened) {
      const { group } = epoch.about
      try {
        await this.#restore(epoch, wish)
      } catch (error) {
        throw done.length === 0 ? error : andDone(error, group, done)
      }
      done.push(group)
    }
    return found
  }

  /** Before anything is imported: what cannot go on here, and what its hosts lack and was not copied. */
  async #requireAll(opened: readonly OpenedEpoch[]): Promise<void> {
    const { hosting, files } = this.#tools()
    for (const { images } of opened) for (const { accel } of Object.values(images)) requireAccel(accel, hosting)
    const vms = opened.flatMap(renamedIn)
    const hint = ' The second home does not have them: the host that copied lacked them, or it was of an older version.'
    await this.#deps.imports.requireFiles(vms, { hosting, files }, hint)
  }

  async #restore(epoch: OpenedEpoch, { owner }: HomeRestoreWish): Promise<GroupRecord> {
    const { imports } = this.#deps
    const { hosting, files } = this.#tools()
    const { about, outputCommit, openFlow, retention } = epoch
    for (const { hash, content } of epoch.files) await files.booting.keep(hash, content)
    const vms = renamedIn(epoch)
    const from = `epoch ${about.epoch} of cluster ${about.clusterName} in the second home`
    const wish = { group: about.group, vms, owner, settings: { outputCommit, openFlow, retention }, from }
    return await imports.run(wish, { hosting, files }, spec => this.#sourceOf(epoch, spec))
  }

  /** A VM's image as an import takes it. */
  async #sourceOf(epoch: OpenedEpoch, spec: VmSpec): Promise<VmSource> {
    const { log } = this.#deps
    const { openReader, hosting, files } = this.#tools()
    const image = epoch.images[spec.id]
    if (image === undefined) throw new DiapauseError('HOME_INVALID', `the epoch has no image of VM ${spec.id}`)
    const worker = await openReader(spec, epoch)
    try {
      const restore = await worker.restore(image)
      const frames = await framesOf(restore, image.stats.inFlightFrames)
      if (frames === undefined) {
        log.warn({ group: epoch.about.group, vm: spec.id }, 'frames that were in flight are too many to take along')
      }
      const socketPath = hosting.vm.path('capture', `second home ${++this.#names}`, spec.id)
      const content = contentOf(restore, spec, files, socketPath)
      return { frames: frames ?? NO_FRAMES, content, close: () => worker.close() }
    } catch (error) {
      await worker.close()
      throw error
    }
  }

  async setRecovery({ public: publicPart, replaces }: RecoveryWish): Promise<RecoveryStatus> {
    const { membership, wallMs, events } = this.#deps
    const before = (await membership.refresh()).recovery
    const there = before === undefined ? undefined : recoveryName(before.public)
    if (there !== replaces && before?.public !== publicPart) {
      throw new UsageError(
        'RECOVERY_KEY_THERE',
        there === undefined
          ? `the cluster has no recovery key ${replaces}: make one without --replace`
          : `the cluster has recovery key ${there} already: whoever has it opens what was copied so far. To seal epochs to a new one from now on: --replace ${there}`
      )
    }
    const note = { public: publicPart, madeMs: Math.floor(wallMs()) }
    const record = await membership.change(setRecovery(note, before?.public))
    if (record.recovery?.public !== publicPart)
      throw new DiapauseError('RECOVERY_KEY_CHANGED', 'the cluster changed at this moment: try again')
    events.emit('recovery-key.set', { name: recoveryName(publicPart) })
    return statusOf(record.recovery)
  }

  #home({ from, credentials }: HomePlace): SecondHome {
    return from === undefined ? this.#configured().home : this.#tools().open({ from, credentials })
  }

  #configured() {
    const { configured } = this.#tools()
    if (configured !== undefined) return configured
    throw new UsageError(
      'HOME_NONE',
      'this peer has no second home: name one ([home] with url = "…" in its config, or --from URL)'
    )
  }

  #tools(): HomeTools {
    const { tools, membership, self } = this.#deps
    if (tools !== undefined) return tools
    const name = memberById(membership.record(), self)?.name ?? self
    throw new DiapauseError('NOT_STORAGE', `${name} is a witness, which has no images: ask a storage member.`)
  }
}

/** What was copied with the epoch the cluster keeps itself from now on: its VMs name it by content. */
const namesOf = ({ files }: OpenedEpoch): Map<string, string> =>
  new Map(files.map(({ path, hash }) => [path, contentName(hash)]))

function renamedIn(epoch: OpenedEpoch): VmSpec[] {
  const names = namesOf(epoch)
  return epoch.vms.map(vm => renamed(vm, path => names.get(path)))
}

const NO_FRAMES: FrameLog = { frames: 0, bytes: 0, async *pieces() {} }

const statusOf = ({ public: publicPart, madeMs }: RecoveryNote): RecoveryStatus => ({
  name: recoveryName(publicPart),
  madeMs
})

interface Which {
  readonly cluster?: string | undefined
  readonly group?: string | undefined
  readonly epoch?: number | undefined
}

/** Of each group of each cluster that is wished for, the epoch that is, or the newest. */
export function newestOf(epochs: readonly HomeEpoch[], { cluster, group, epoch }: Which): HomeEpoch[] {
  const newest = new Map<string, HomeEpoch>()
  for (const each of epochs) {
    if ((cluster ?? each.cluster) !== each.cluster || (group ?? each.group) !== each.group) continue
    if ((epoch ?? each.epoch) !== each.epoch) continue
    const key = `${each.cluster}/${each.group}`
    const before = newest.get(key)
    if (before === undefined || isNewer(each, before)) newest.set(key, each)
  }
  return [...newest.values()]
}

/** A group that was removed and made again under its name begins with epoch 1, in a later generation. */
const isNewer = (a: HomeEpochName, b: HomeEpochName): boolean =>
  a.generation === b.generation ? a.epoch > b.epoch : a.generation > b.generation

/** HOME_DAMAGED where a newer epoch than one of `chosen` is there and cannot be read: nobody goes back unknowingly. */
export function refuseDamaged({ damaged }: HomeListing, chosen: readonly HomeEpoch[]): void {
  for (const of of chosen) {
    const newer = damaged.find(each => each.cluster === of.cluster && each.group === of.group && isNewer(each, of))
    if (newer === undefined) continue
    throw new DiapauseError(
      'HOME_DAMAGED',
      `${newer.name}, an epoch of group "${of.group}", cannot be read. The newest that can is epoch ${of.epoch}, copied ${new Date(of.copiedMs).toISOString()}: ask for it with --epoch ${of.epoch}`,
      { details: { name: newer.name } }
    )
  }
}

/**
 * HOME_YOUNG where another cluster has copied one of `chosen` lately: it may live, and then its VMs would run twice. Nothing
 * here can know that: the register that gives each VM to one owner is that cluster's. In its own cluster it is that register
 * which refuses, where the group is there still.
 */
export function refuseYoung(chosen: readonly HomeEpoch[], cluster: string, nowMs: number): void {
  for (const { cluster: of, clusterName, group, epoch, copiedMs } of chosen) {
    if (of === cluster || copiedMs < nowMs - YOUNG_MS) continue
    const minutes = Math.max(0, Math.floor((nowMs - copiedMs) / 60_000))
    throw new UsageError(
      'HOME_YOUNG',
      `cluster ${clusterName} copied epoch ${epoch} of group "${group}" ${minutes} minutes ago, so it may live, and each VM would then run twice, with the same addresses and the same money. See that its hosts are off, or cut off for good; then --force`,
      { details: { cluster: of, group, copiedMs } }
    )
  }
}

function noEpoch(home: SecondHome, wish: Which, key?: string): UsageError {
  const which = `${wish.epoch === undefined ? 'no epoch' : `no epoch ${wish.epoch}`}${wish.group === undefined ? '' : ` of group "${wish.group}"`}`
  const opened = key === undefined ? '' : ` that recovery key ${key} opens`
  return new UsageError('HOME_NO_EPOCH', `there is ${which} in ${home.url}${opened}: see diapause home list`)
}

/** Of several groups some are there already: whoever tries again must name the others. */
function andDone(error: unknown, group: string, done: readonly string[]): unknown {
  if (!(error instanceof DiapauseError)) return error
  const message = `group "${group}" was not restored: ${error.message} Before it were: ${done.join(', ')}; name the others with --group.`
  return new DiapauseError(error.code, message, { cause: error, details: { ...error.details, done } })
}

/** Undefined: they are too many. */
async function framesOf(restore: Restore, frames: number): Promise<FrameLog | undefined> {
  const kept: Uint8Array[] = []
  let bytes = 0
  for await (const piece of restore.frames) {
    bytes += piece.length
    if (bytes <= MAX_FRAME_BYTES) kept.push(piece)
    else kept.length = 0
  }
  if (bytes > MAX_FRAME_BYTES) return undefined
  return {
    frames,
    bytes,
    async *pieces() {
      yield* kept
    }
  }
}

async function* contentOf(
  restore: Restore,
  spec: VmSpec,
  files: ImageFiles,
  socketPath: string
): AsyncGenerator<ImportedFile> {
  yield { name: files.ramFile, content: files.exportRam(restore, socketPath) }
  for (const i of disksOf(spec).keys()) {
    const disk = restore.disks[i]
    if (disk === undefined) throw new DiapauseError('HOME_INVALID', `the image of VM ${spec.id} has no disk ${i}`)
    yield { name: files.diskFile(i), content: files.exportDisk(disk) }
  }
}
