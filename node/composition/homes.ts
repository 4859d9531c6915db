/**
 * The second home, joined: object store, copies and the agent that makes them, and how images are read out of it. A part of the
 * composition root, which a witness does not load.
 */
import { randomBytes } from 'node:crypto'
import type { Config, ShardSettings } from '../../config/schema.ts'
import type { PeerId } from '../../protocols/core.ts'
import { disksOf } from '../../protocols/group.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { Hosting, Report } from '../agents/group-agent.ts'
import type { Keepers } from '../agents/keepers.ts'
import { SecondHomeAgent } from '../agents/second-home.ts'
import type { HomePlace } from '../edge/home-view.ts'
import { UsageError } from '../errors.ts'
import type { ImageFiles } from '../operations/group-import.ts'
import type { HomeTools } from '../operations/home.ts'
import { type HomeCredentials, readCredentials } from '../host/home-credentials.ts'
import { createImageWorker } from '../image/image-worker.ts'
import { decodeManifest, encodeManifest, type ImageHead } from '../image/manifest.ts'
import { encodeStreamManifest } from '../image/stream-manifest.ts'
import type { BootFile, Clock, Log, Membership, ObjectStore, SecondHome, StreamKeys } from '../ports.ts'
import { createSecondHome } from '../second-home/home.ts'
import { openConfigured, openHome } from '../second-home/open.ts'

/** Images know disks as they know RAM: in pages of 4096 bytes. */
const BLOCKS_PER_MIB = 256

export interface HomesDeps {
  readonly config: Config
  readonly self: PeerId
  readonly run: string
  readonly directory: GroupDirectory
  readonly keepers: Keepers
  readonly membership: Membership
  readonly hosting: Hosting
  readonly files: ImageFiles
  readonly clock: Clock
  readonly log: Log
  readonly report: Report
  /** Of the peer's environment. */
  readonly credentials: HomeCredentials | undefined
  wallMs(): number
  keysOf(group: string): readonly StreamKeys[]
}

/** UsageErrors where the config's second home cannot be one; whether it is there shows when it is used. */
export async function openHomes(deps: HomesDeps): Promise<HomeTools & { stop(): Promise<void> }> {
  const { config, hosting, files } = deps
  const { home: settings } = config
  const file = settings?.credentialsFile
  const own = file === undefined ? deps.credentials : await readCredentials(file)
  const open = ({ from, credentials = own }: HomePlace): SecondHome => {
    if (from === undefined) throw new UsageError('HOME_URL', 'a second home has a URL')
    return homeOn(deps, openHome(from, credentials))
  }
  const openFile = (name: string): Promise<BootFile> => files.booting.open(name)
  const home = settings && homeOn(deps, openConfigured(settings.url, own))
  const agent = settings && home && new SecondHomeAgent({ ...deps, ...settings, ...hosting, home, openFile })
  return {
    hosting,
    files,
    configured: home && agent && { home, agent },
    open,
    openReader: (spec, epoch) =>
      createImageWorker({
        group: epoch.about.group,
        vm: spec.id,
        memoryMiB: spec.memoryMiB,
        accel: hosting.vm.hypervisor.accel,
        key: randomBytes(32), // for content ids, of which reading makes none
        dataKeys: () => epoch.keys,
        shape: shapeOf(config.shards),
        disks: disksOf(spec).map(({ sizeMiB }) => ({ blocks: sizeMiB * BLOCKS_PER_MIB })),
        contentsMiB: 0,
        cluster: {
          ...hosting.shards,
          readData: (manifest, offset, length) => epoch.readData(manifest, offset, length)
        },
        log: deps.log
      }),
    stop: async () => await agent?.stop()
  }
}

const shapeOf = ({ k, m, symbolBytes, durability }: ShardSettings) => ({ k, m, symbolBytes, durability })

function homeOn({ config, hosting, clock, wallMs }: HomesDeps, store: ObjectStore): SecondHome {
  return createSecondHome({
    store,
    clock,
    wallMs,
    bytesPerSecond: (config.home?.megabytesPerSecond ?? Number.POSITIVE_INFINITY) * 1e6,
    randomBytes: count => new Uint8Array(randomBytes(count)),
    readData: (manifest, offset, length) => hosting.shards.readData(manifest, offset, length),
    nameOf: stream => encodeStreamManifest(stream).hash,
    encodeImage: manifest => encodeManifest(manifest).objects.at(-1)?.bytes ?? new Uint8Array(),
    decodeImage: bytes => headOf(decodeManifest(bytes))
  })
}

/** Those of older formats, which have their streams in them, are encoded as of this one. */
function headOf(image: ReturnType<typeof decodeManifest>): ImageHead {
  const { streams, ...rest } = image
  return {
    ...rest,
    streams: streams.map(each =>
      'manifest' in each ? each : { stream: each.stream, manifest: encodeStreamManifest(each).hash }
    )
  }
}
