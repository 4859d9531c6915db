/** The second home of a group's epochs: a bucket or a directory outside of the cluster. */
import type { RetentionPolicy, VmSpec } from '../../protocols/group.ts'
import type { BootFile } from './boot-files.ts'
import type { ImageManifest, StreamManifest } from './images.ts'

/**
 * Where objects lie: names of folders and a last part, of letters, digits, `_`, `.` and `-`, with `/` between. An object is
 * whole or not there. HOME_UNREACHABLE where nobody answers, HOME_REFUSED where the credentials do not suffice, HOME_FULL.
 * Once `signal` is aborted nothing more is asked for, and HOME_CANCELLED told; a store may leave it aside where it never waits long.
 */
export interface ObjectStore {
  /** For people: what of it a config says, without credentials. */
  readonly url: string
  /** Durable when it resolves; in the place of one of that name. */
  put(name: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void>
  /** HOME_MISSING. There are no parts to ask for: what is read is checked by a hash of all of it. */
  get(name: string, signal?: AbortSignal): Promise<Uint8Array>
  /** Undefined where it is not there. */
  stat(name: string, signal?: AbortSignal): Promise<StoredFacts | undefined>
  /** All whose names begin with `prefix`, in no order. Those that come or go meanwhile may be among them or not. */
  list(prefix: string, signal?: AbortSignal): AsyncIterable<StoredFacts & { readonly name: string }>
  /** Also where it is not there. */
  delete(name: string, signal?: AbortSignal): Promise<void>
  /** What puts that died on the way left before then, by the wall clock; absent where nothing is left of them. */
  removePartial?(beforeMs: number): Promise<void>
}

export interface StoredFacts {
  readonly bytes: number
  /** When it was put, by the wall clock of whoever stores it: in whole seconds at some. */
  readonly putMs: number
}

/** Epochs of groups in an object store: copied there from the cluster's shards, cleaned up, listed, checked, opened. */
export interface SecondHome {
  readonly url: string
  /** Of all clusters and groups, or of one; by group and number. What is there and cannot be read is in `damaged`. */
  epochs(of?: { readonly cluster: string; readonly group: string }): Promise<HomeListing>
  /**
   * Copies an epoch, whose shards must stay while it runs: what lies there already is not copied again. Where it is ended it
   * leaves nothing but chunks that the next one uses. HOME_CANCELLED, at once, and what reading shards rejects with.
   */
  copy(wish: HomeWish, how: HomeCopying): Promise<HomeCopy>
  /** Forgets all epochs of the group but the newest `keep` and the one just `copied`, and then what no epoch needs. HOME_CANCELLED, at once. */
  sweep(
    of: { readonly cluster: string; readonly group: string },
    keep: number,
    copied?: HomeEpochName,
    signal?: AbortSignal
  ): Promise<HomeSweep>
  /** Whether all of an epoch is there; `deep`: and is what it was. */
  verify(of: HomeEpochName, deep: boolean): Promise<HomeCheck>
  /** With the recovery key. HOME_MISSING, HOME_INVALID, RECOVERY_KEY_OTHER. */
  open(of: HomeEpochName, recoveryKey: Uint8Array): Promise<OpenedEpoch>
}

export interface HomeEpochName {
  /** Id of the cluster. */
  readonly cluster: string
  readonly group: string
  /** Grows with each life of the group's name, where numbers of epochs begin again, and when the group goes back. */
  readonly generation: number
  readonly epoch: number
}

export interface HomeListing {
  readonly epochs: readonly HomeEpoch[]
  readonly damaged: readonly DamagedEpoch[]
  /** Names of objects among them that no epoch has: put by somebody else, or by an older version. */
  readonly others: readonly string[]
}

/** An epoch whose object cannot be read, by the object's name. */
export interface DamagedEpoch extends HomeEpochName {
  readonly name: string
}

/** What can be read of an epoch without a key. */
export interface HomeEpoch extends HomeEpochName {
  readonly clusterName: string
  readonly copiedMs: number
  /** Which recovery key opens it. */
  readonly recovery: string
  readonly vms: readonly string[]
  readonly streams: number
  /** Of all its streams, which it may share with other epochs. */
  readonly bytes: number
}

export interface HomeWish {
  readonly cluster: { readonly id: string; readonly name: string }
  readonly group: string
  readonly epoch: number
  /** Of the epoch. */
  readonly generation: number
  /** Of the group now. An epoch that the group has gone back to is named by it, so that it is newer than those it gave up. */
  readonly groupGeneration: number
  readonly vms: readonly VmSpec[]
  readonly outputCommit: boolean
  readonly openFlow: boolean
  readonly retention?: RetentionPolicy | undefined
  /** By VM. */
  readonly images: Readonly<Record<string, ImageManifest>>
  readonly keys: readonly StreamKeys[]
  /** What its VMs boot from, each path once; one that is not among them is not copied. */
  readonly files?: readonly BootFile[] | undefined
  /** Public part of the recovery key. */
  readonly recovery: string
}

/** A kernel or initrd in a second home. */
export interface HomeFile extends Omit<BootFile, 'read'> {
  /** HOME_DAMAGED, at its end at the latest, where it is not what was copied. */
  content(): AsyncIterable<Uint8Array>
}

/** A data key as it is for streams of a group, and for those of bases: 32 bytes each. */
export interface StreamKeys {
  readonly id: number
  readonly key: Uint8Array
  readonly baseKey?: Uint8Array | undefined
}

export interface HomeCopying {
  readonly signal: AbortSignal
  /** Looks for every chunk, also of streams that an epoch there has: what went astray there is sent again. */
  readonly all?: boolean
  /** Of the bytes of streams that are not there yet. */
  progress(doneBytes: number, allBytes: number): void
}

export interface HomeCopy {
  /** By which the epoch is named there. */
  readonly generation: number
  /** Of its streams, those that were not there. */
  readonly streamsCopied: number
  readonly streams: number
  /** Sent; less than those of the streams where an earlier copy came some way. */
  readonly bytesSent: number
}

export interface HomeSweep {
  readonly epochs: number
  readonly objects: number
  /** Nothing was removed but epochs, because what these say could not be read. */
  readonly damaged: readonly string[]
}

export interface HomeCheck {
  readonly streams: number
  readonly chunks: number
  readonly bytes: number
  /** Names of objects that are missing or not what they were. */
  readonly damaged: readonly string[]
}

/** An epoch of a group, with all that is needed to read it. */
export interface OpenedEpoch
  extends Pick<HomeWish, 'vms' | 'outputCommit' | 'openFlow' | 'retention' | 'images' | 'keys'> {
  readonly about: HomeEpoch
  /** By their paths in `vms`: those that were copied. */
  readonly files: readonly HomeFile[]
  /** As `ShardCluster.readData`; HOME_DAMAGED where what comes is not what was copied. */
  readData(manifest: StreamManifest, offset: number, length: number): Promise<Uint8Array>
}
