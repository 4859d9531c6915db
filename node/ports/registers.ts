/** Registers: what a majority of the voters has decided. */
import type { PeerId } from '../../protocols/core.ts'
import type { Settled } from '../../protocols/register/settling.ts'
import type { VoterSet } from '../../protocols/register/voters.ts'

export interface Registers {
  /** Linearizable read. Rejects with REGISTER_UNAVAILABLE where no majority answers in time. */
  read(key: string): Promise<unknown>
  /**
   * Compare-and-set by a pure function of the present value (null before the first). `undefined` from `next` means
   * "leave it": the present value is then the result. `fence` names the holders whose leases on this key must have
   * run out before voters accept the change: rejects with REGISTER_LEASED (details.retryMs) while one has not.
   * Contention is retried inside, with jitter.
   */
  change(
    key: string,
    next: (current: unknown) => unknown,
    options?: { fence?: (current: unknown, next: unknown) => PeerId[]; generation?: (next: unknown) => number }
  ): Promise<unknown>
  /**
   * A change that ends the register: it reads as null afterwards, and in the end every voter forgets it. False where `only`
   * said no to the present value; it should tell the register that is meant from one made anew under the key, for a
   * deletion that is tried again may find that. `fence` as above; leases of all its generations are over. A register
   * that is made anew must begin with a generation above the one that the last ended with.
   */
  delete(
    key: string,
    options?: { only?: (current: unknown) => boolean; fence?: (current: unknown) => PeerId[] }
  ): Promise<boolean>
  /** Keys with a value that this peer's own acceptor knows. A hint, for start-up. */
  localKeys(): Promise<string[]>
  /**
   * Sorted: every key with a value that was chosen when this was called, and perhaps some that have none. Rejects with
   * REGISTER_UNAVAILABLE where no majority lists its keys in time, REGISTER_VOTERS_CHANGED where the voters change meanwhile.
   */
  allKeys(): Promise<readonly string[]>
}

/** Whose votes count for the registers; `protocols/register/voters.ts` says when they may change. */
export interface RegisterVoters {
  /** The newest set known here. */
  voters(): VoterSet
  /** Takes a set that was *chosen*; an older one than the present is ignored. REGISTER_VOTERS for another of its version. */
  setVoters(set: VoterSet): void
  /**
   * Does (a) and (b) of voters.ts for the present set. What is left is to wait until leases of the set before are over, and
   * to mark it as settled. REGISTER_UNAVAILABLE; REGISTER_VOTERS_CHANGED where it need not be done any more.
   */
  settle(onProgress?: (done: number, total: number) => void): Promise<Settled>
}

/** What the registers must not forget: a small map from names to bytes, held in memory by its user. */
export interface RegisterStore {
  /** Every entry. REGISTER_STORE_CORRUPT where a checksum fails: what was promised is unknown, so this peer must not vote. */
  load(): Promise<(readonly [string, Uint8Array])[]>
  /**
   * Writes entries, removes those that are null; fsynced when it resolves. Until then a crash may leave any of them on
   * disk, each whole. REGISTER_STORE_WRITE: then nothing may be said that relies on them.
   */
  persist(entries: readonly (readonly [string, Uint8Array | null])[]): Promise<void>
  close(): Promise<void>
}
