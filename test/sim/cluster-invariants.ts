/**
 * What must hold of a whole cluster, whatever happens to it. Each invariant is a function with its name; the first that is
 * violated is kept, with its time. They are judged by what is on the voters' disks and in the world's book, never by what a
 * peer believes.
 */
import { Packr } from 'msgpackr'
import { neededStores } from '../../node/planning/membership.ts'
import { parseGroupRecord } from '../../protocols/epoch/messages.ts'
import { decodeBatch } from '../../protocols/frames/records.ts'
import { type GroupRecord, groupKey } from '../../protocols/group.ts'
import type { PeerId } from '../../protocols/core.ts'
import { type Accepted, compareBallots } from '../../protocols/register/messages.ts'
import { valueOf } from '../../protocols/register/value.ts'
import type { VoterSet } from '../../protocols/register/voters.ts'
import {
  CLUSTER_KEY,
  type ClusterRecord,
  memberById,
  type MemberRecord,
  parseClusterRecord
} from '../../protocols/membership/record.ts'
import { Beliefs } from './cluster-beliefs.ts'
import { Channels } from './cluster-channels.ts'
import { isByMajority, wrongBetween } from './cluster-chain.ts'
import { lackingAtCommit } from './cluster-durable.ts'
import { framesOfImage } from './cluster-frames.ts'
import { type Disks, manifestsOf, neededBy, wrongOfEpochs } from './cluster-kept.ts'
import { Outside } from './cluster-outside.ts'
import { Rests } from './cluster-rest.ts'
import type { ClusterSettings, SimPeer } from './cluster-peer.ts'
import type { Kernel } from './kernel.ts'
import { auditBanks, type BankImage, frameId } from './world-bank.ts'
import { assemble, type Book, type CutFact } from './world-book.ts'
import type { Host, Life } from './world-host.ts'
import type { SimManifest } from './world-images.ts'
import type { Network } from './world-network.ts'

const packr = new Packr({ useRecords: false })
/**
 * A connection that is there again tells at once who was held for dead. What was lost in bad weather waits for the next round
 * of probes, up to nine times as long where both have been slow. Measured: 1 s at most, 3,800 times in 400 seeds.
 */
const REFUTED_MS = 2_500
/** Measured: 50 ms at most in 400 seeds. */
const DEAF_MS = 100

interface Chosen {
  readonly accepted: Accepted
  readonly record: GroupRecord
}

/** What a chosen change has taken from the process that held it; watched while that lives. */
interface Displaced {
  readonly holder: Life
  readonly key: string
  /** Generations `from` and up, below `below`. */
  readonly from: number
  below: number
}

export interface JudgedWorld {
  readonly kernel: Kernel
  readonly network: Network
  readonly book: Book
  readonly settings: ClusterSettings
  /** What the cluster begins with. */
  readonly genesis: ClusterRecord
  peerOf(life: Life | undefined): SimPeer | undefined
}

export class Judge {
  readonly #world: JudgedWorld
  /** Key and ballot → who has it on disk, and the version of the voter set that the first of them was in. */
  readonly #held = new Map<string, { readonly peers: Set<PeerId>; readonly version: number; chosen: boolean }>()
  /** Register → what was chosen, by ballot. */
  readonly #chosen = new Map<string, Chosen[]>()
  /** Peer → the version of voters on its disk. */
  readonly #versions = new Map<PeerId, number>()
  readonly #voters = new Map<number, VoterSet>()
  #cluster: ClusterRecord
  #displaced: Displaced[] = []
  /** Group → streams and manifests that its committed epoch needs. */
  readonly #needed = new Map<string, Set<string>>()
  readonly #judged = new Set<string>()
  /** Group, generation and epoch of all that were ever committed. */
  readonly #epochs = new Set<string>()
  /** Group → versions in which it was removed. */
  readonly #removals = new Map<string, number[]>()
  readonly beliefs: Beliefs
  readonly outside: Outside
  readonly channels: Channels
  readonly rests: Rests
  violation: string | undefined
  committed = 0
  takeovers = 0

  constructor(world: JudgedWorld) {
    this.#world = world
    this.outside = new Outside(world)
    this.rests = new Rests(world, what => this.fail('restingGroupsStandStill', what))
    this.channels = new Channels({ ...world, newest: group => this.record(group)?.version })
    this.#cluster = world.genesis
    this.beliefs = new Beliefs(world)
    this.#voters.set(world.genesis.voters.version, world.genesis.voters)
  }

  /** The value of the cluster's register. */
  get cluster(): ClusterRecord {
    return this.#cluster
  }

  /** The value of a group's register. */
  record(group: string): GroupRecord | undefined {
    return this.#chosen.get(groupKey(group))?.at(-1)?.record
  }

  fail(invariant: string, what: string): void {
    if (this.violation !== undefined) return
    this.violation = `${invariant} at ${this.#world.kernel.nowMs.toFixed(3)} ms: ${what}`
    this.#world.kernel.note(() => `VIOLATION ${this.violation}`)
  }

  // ------------------------------------------------------------------------------------------ after every event

  /**
   * A displaced owner has no lease, also where it has been stopped, for its clock goes on. A host that is frozen does
   * nothing, so it is asked when it goes on, before it does anything else.
   */
  leasesDoNotOverlap(): void {
    this.#displaced = this.#displaced.filter(({ holder }) => !holder.dead)
    for (const { holder, key, from, below } of this.#displaced) {
      const leases = holder.host.stopped === 'all' ? undefined : this.#world.peerOf(holder)?.leases
      for (let generation = from; leases !== undefined && generation < below; generation++) {
        const leftMs = leases.remainingMs(key, generation)
        if (leftMs <= 0) continue
        const who = holder.host.name
        this.fail('leasesDoNotOverlap', `${who} may act ${leftMs} ms on ${key}/${generation}, displaced below ${below}`)
      }
    }
  }

  /** A member that runs and is connected refutes that it is dead. */
  nobodyIsTakenForDead(): void {
    const wrong = this.beliefs.lasting(REFUTED_MS)
    if (wrong !== undefined) this.fail('nobodyIsTakenForDead', `${wrong}, connected for ${REFUTED_MS} ms`)
  }

  // ------------------------------------------------------------------------------------------ frames on the wire

  /** Frames leave a peer under its lease only, and never after a successor's. */
  ownersSpeakInTurn(life: Life, message: Uint8Array): void {
    const { group, generation, records } = decodeBatch(message)
    const peer = this.#world.peerOf(life)
    if (!records.some(({ packet }) => packet !== undefined) || peer === undefined) return
    if (peer.leases.remainingMs(groupKey(group), generation) <= 0) {
      this.fail('ownersSpeakInTurn', `${life.host.name} sends frames of ${group}/${generation} without a lease`)
    }
    for (const { source, packet } of records) {
      const wrong = packet && this.#world.book.spoken(life.host.name, group, generation, source)
      if (wrong !== undefined) this.fail('ownersSpeakInTurn', wrong)
    }
  }

  /** A VM takes frames of its own generation only, and those of its image. */
  generationsDoNotMix(
    by: { readonly vm: string; readonly generation: number; injected: ReadonlySet<number> },
    id: number
  ): void {
    const from = this.#world.book.frames[id]?.from
    if (from === undefined || from.generation === by.generation || by.injected.has(id)) return
    const what = `${by.vm} of generation ${by.generation} takes a frame of ${from.vm} of generation ${from.generation}`
    this.fail('generationsDoNotMix', what)
  }

  /** Frames wait for a VM that runs only while an epoch is open. */
  nobodyIsDeaf(life: Life, message: Uint8Array): void {
    const wrong = this.channels.came(life, message, DEAF_MS)
    if (wrong !== undefined) this.fail('nobodyIsDeaf', wrong)
  }

  /** Of a group with output commit nobody outside hears what a rollback could undo, nor from a peer without its lease. */
  nothingHeardIsTakenBack(life: Life, id: number): void {
    const wrong = this.outside.hear(life, id)
    if (wrong !== undefined) this.fail('nothingHeardIsTakenBack', wrong)
  }

  // ------------------------------------------------------------------------------------------ registers on disks

  /** An entry has become durable at a voter. */
  onRegister(host: Host, name: string, bytes: Uint8Array | null): void {
    if (bytes === null) return
    const [, body] = packr.unpack(bytes) as [number, unknown]
    if (name === 'voters') {
      const set = body as VoterSet
      this.#versions.set(host.name, set.version)
      this.#voters.set(set.version, set)
      return
    }
    const { accepted } = body as { accepted?: Accepted | null }
    if (!name.startsWith('register/') || accepted === undefined || accepted === null) return
    const key = name.slice('register/'.length)
    const ballot = `${key} ${accepted.ballot.counter}/${accepted.ballot.peer}`
    const version = this.#versions.get(host.name) ?? 1
    const held = this.#held.get(ballot) ?? { peers: new Set(), version, chosen: false }
    if (held.peers.size === 0) this.#noteRemoval(key, accepted)
    this.#held.set(ballot, held)
    if (held.peers.has(host.name)) return
    held.peers.add(host.name)
    if (held.chosen || !isByMajority(held, this.#voters)) return
    held.chosen = true
    this.#choose(key, accepted)
  }

  /** Also of a record that is never chosen itself: what follows it may be. */
  #noteRemoval(key: string, accepted: Accepted): void {
    const record = key === CLUSTER_KEY ? null : parseGroupRecord(valueOf(accepted))
    if (record?.removed !== true) return
    const removals = this.#removals.get(record.id) ?? []
    this.#removals.set(record.id, [...removals, record.version])
  }

  #choose(key: string, accepted: Accepted): void {
    const value = valueOf(accepted)
    if (key === CLUSTER_KEY) return this.clustersAreOneChain(parseClusterRecord(value))
    const record = parseGroupRecord(value)
    if (record === null) return
    if (record.committed !== null) this.#epochs.add(nameOf(record, record.committed))
    const chosen = this.#chosen.get(key) ?? []
    this.#chosen.set(key, chosen)
    chosen.push({ accepted, record })
    chosen.sort((a, b) => compareBallots(a.accepted.ballot, b.accepted.ballot))
    const place = chosen.findIndex(each => each.accepted === accepted)
    const [before, after] = [chosen[place - 1]?.record, chosen[place + 1]?.record]
    if (before !== undefined) this.epochsAreNotForgotten(before, record)
    if (after !== undefined) this.epochsAreNotForgotten(record, after)
    if (before !== undefined) this.#noteDisplaced(key, before, record)
    if (place !== chosen.length - 1) return
    this.rests.chosen(before, record)
    this.#newest(record)
  }

  /** Of two chosen records of the cluster with one version there is one content, and each follows from the one before. */
  clustersAreOneChain(record: ClusterRecord | null): void {
    if (record === null) return
    const was = this.#cluster
    if (record.version === was.version && JSON.stringify(record) !== JSON.stringify(was))
      this.fail('clustersAreOneChain', `version ${record.version} has two contents`)
    if (record.version <= was.version) return
    this.#cluster = record
    this.#voters.set(record.voters.version, record.voters)
    const wrong = wrongBetween(was, record)
    if (wrong !== undefined) this.fail('clustersAreOneChain', wrong)
    const gone = was.members.filter(({ id }) => memberById(record, id) === undefined)
    if (gone.length > 0) this.removalsTakeNothing(was, gone)
  }

  /** Without who was removed every committed epoch can be restored, and who was not removed by force was needed for none. */
  removalsTakeNothing(was: ClusterRecord, gone: readonly MemberRecord[]): void {
    for (const key of this.#chosen.keys()) {
      const record = this.#chosen.get(key)?.at(-1)?.record
      if (record === undefined || record.removed) continue
      this.keptEpochsAreWhole(record)
      const manifests = this.committedEpochsAreWhole(record)
      const needed = neededStores(was, manifests, new Set())
      for (const { id, forced } of gone) {
        const owned = record.resting ? undefined : record.vms.find(vm => record.owners[vm.id] === id)
        if (forced || (owned === undefined && !needed.has(id))) continue
        const what = owned === undefined ? 'is needed for its committed epoch' : `owns ${owned.id}`
        this.fail('removalsTakeNothing', `${id} was removed, and of ${record.id} it ${what}`)
      }
    }
  }

  /** Of two chosen values of one life of a group the later has all that the earlier decided; its numbers never fall. */
  epochsAreNotForgotten(earlier: GroupRecord, later: GroupRecord): void {
    const said = `${earlier.id} version ${earlier.version} then ${later.version}`
    const removals = this.#removals.get(earlier.id) ?? []
    const ended = removals.some(version => earlier.version <= version && version <= later.version)
    const fell = later.lastEpoch < earlier.lastEpoch && !ended // a group that was forgotten counts its epochs anew
    if (later.version < earlier.version || later.generation < earlier.generation || fell)
      this.fail('epochsAreNotForgotten', `${said}: numbers fell`)
    if (later.version === earlier.version && JSON.stringify(later) !== JSON.stringify(earlier))
      this.fail('epochsAreNotForgotten', `${said}: two contents of one version`)
    const wrong = ended ? undefined : wrongOfEpochs(earlier, later)
    if (wrong !== undefined) this.fail('epochsAreNotForgotten', `${said}: ${wrong}`)
  }

  #noteDisplaced(key: string, before: GroupRecord, after: GroupRecord): void {
    if (after.generation > before.generation) this.takeovers += 1
    for (const [vm, owner] of Object.entries(before.owners)) {
      const holder = this.#world.network.hosts.get(owner)?.life
      if (after.owners[vm] === owner || holder === undefined) continue
      const known = this.#displaced.find(each => each.holder === holder && each.key === key)
      if (known !== undefined) known.below = Math.max(known.below, after.generation)
      else this.#displaced.push({ holder, key, from: Math.max(1, after.generation - 4), below: after.generation })
    }
  }

  // ------------------------------------------------------------------------------------------ epochs

  #newest(record: GroupRecord): void {
    const { committed } = record
    if (committed === null) {
      this.#needed.delete(record.id) // it has just been made, or was removed
      return
    }
    this.#newlyCommitted(record, nameOf(record, committed))
    this.keptEpochsAreWhole(record)
  }

  #newlyCommitted(record: GroupRecord, name: string): void {
    if (this.#judged.has(name)) return
    this.#judged.add(name)
    this.committed += 1
    const manifests = this.committedEpochsAreWhole(record)
    if (manifests === undefined) return
    const lacking = lackingAtCommit(this.#world.network, manifests)
    if (lacking !== undefined) this.fail('commitsAreDurable', lacking)
    this.imagesLeanOnCommittedEpochs(record, manifests)
    this.imagesAreOneCut(record, manifests)
  }

  /** Every epoch that is kept can be read, not only the committed one. */
  keptEpochsAreWhole(record: GroupRecord): void {
    const needed = neededBy(this.#disks, record)
    if (typeof needed === 'string') this.fail('keptEpochsAreWhole', needed)
    else this.#needed.set(record.id, needed)
  }

  /** What came to nothing may be forgotten at any time: no image has a page from there. */
  imagesLeanOnCommittedEpochs({ id, committed }: GroupRecord, manifests: readonly SimManifest[]): void {
    for (const { stream } of manifests.flatMap(({ streams }) => streams)) {
      const [, , generation, epoch] = stream.split('/')
      if (this.#epochs.has(`${id} ${generation} ${epoch}`)) continue
      this.fail('imagesLeanOnCommittedEpochs', `epoch ${committed?.epoch} of ${id} needs ${stream}, which is void`)
    }
  }

  /** Manifests and enough columns of every image are on disks, whoever is away now. */
  committedEpochsAreWhole(record: GroupRecord): SimManifest[] | undefined {
    const manifests = record.committed === null ? [] : manifestsOf(this.#disks, record, record.committed)
    if (typeof manifests !== 'string') return manifests
    this.fail('committedEpochsAreWhole', manifests)
    return undefined
  }

  get #disks(): Disks {
    const isMember = (id: PeerId): boolean => memberById(this.#cluster, id) !== undefined
    return { network: this.#world.network, isMember }
  }

  /** What a committed epoch or an open one needs is not forgotten anywhere. */
  neededDataIsKept(host: Host, name: string): void {
    for (const [group, needed] of this.#needed) {
      if (needed.has(name)) this.fail('neededDataIsKept', `${host.name} forgets ${name}, which ${group} needs`)
    }
    const [group = '', , generation, epoch] = name.split('/')
    const record = this.record(group)
    if (record?.open?.epoch !== Number(epoch) || record.generation !== Number(generation)) return
    this.fail('neededDataIsKept', `${host.name} forgets ${name} of an open epoch`)
  }

  /** Whether no restore can ask for this stream any more. */
  isVoid(stream: string): boolean {
    const [group = '', , generation, epoch] = stream.split('/')
    const record = this.record(group)
    if (record === undefined || this.#needed.get(group)?.has(stream) === true) return false
    if (Number(generation) !== record.generation) return Number(generation) < record.generation
    return Number(epoch) <= record.lastEpoch && record.open?.epoch !== Number(epoch)
  }

  /** The images of one epoch are one consistent cut, with every frame that was under way. */
  imagesAreOneCut(record: GroupRecord, manifests: readonly SimManifest[]): void {
    const { book } = this.#world
    const epoch = `epoch ${record.committed?.epoch} of ${record.id}`
    const images = new Map<string, BankImage>()
    const facts = new Map<string, CutFact>()
    for (const { vm, slots, streams } of manifests) {
      const last = streams.at(-1)?.stream ?? ''
      const image = assemble(book, last, slots)
      const fact = book.contents.get(last)?.fact
      if (image === undefined || fact === undefined) return this.fail('imagesAreOneCut', `${epoch}: ${vm} lacks pages`)
      if (JSON.stringify(image.pages) !== JSON.stringify(fact.pages))
        return this.fail('imagesAreOneCut', `${epoch}: the image of ${vm} is not its RAM at the cut`)
      images.set(vm, image)
      facts.set(vm, fact)
      this.outside.committed(fact)
    }
    const vms = record.vms.map(({ id }) => id)
    const audit = auditBanks(vms, images)
    if (audit !== undefined) this.fail('imagesAreOneCut', `${epoch}: ${audit}`)
    for (const [vm, { frames }] of images) {
      const wrong = framesOfImage(book, facts, vm, frames.map(frameId))
      if (wrong !== undefined) this.fail('imagesAreOneCut', `${epoch}: ${wrong}`)
    }
  }
}

const nameOf = ({ id }: GroupRecord, { generation, epoch }: { generation: number; epoch: number }): string =>
  `${id} ${generation} ${epoch}`
