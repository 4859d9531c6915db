/** Who holds the columns of new streams: the plan (`planning/holders.ts`) of what is known of members now, and of who held the last ones. */
import type { PeerId } from '../../protocols/core.ts'
import type { StoragePeer } from '../planning/domains.ts'
import { placeColumns, withinReach } from '../planning/holders.ts'
import type { StreamId, Transport } from '../ports.ts'

/** Keys whose last holders are remembered. A guess: more groups than a host has. */
const MAX_REMEMBERED = 1_000

export interface PlacingDeps {
  readonly self: PeerId
  readonly transport: Pick<Transport, 'connected'>
  readonly about: (peers: readonly PeerId[]) => readonly StoragePeer[]
}

export interface Placed {
  /** Column c → peer. */
  readonly holders: readonly PeerId[]
  /** All that may be asked to store: who is given manifests. */
  readonly peers: readonly PeerId[]
  /** Who has the columns of older streams, as `StoredElsewhere` has it. Absent: they are as planned. */
  readonly storedAt?: ((stream: StreamId) => readonly PeerId[] | undefined) | undefined
}

export class Placing {
  readonly #deps: PlacingDeps
  readonly #last = new Map<string, readonly PeerId[]>()

  constructor(deps: PlacingDeps) {
    this.#deps = deps
  }

  /** `key`: whose streams they are, such as a group's: its VMs lean on each other's; `living`: storage members that are alive. */
  place(living: readonly PeerId[], { k, m }: { readonly k: number; readonly m: number }, key: string): Placed {
    const { self, transport, about } = this.#deps
    const peers = withinReach(living, peer => peer === self || transport.connected(peer), k, m)
    const holders = placeColumns(about(peers), { k, m, key, before: this.#last.get(key) })
    this.#last.delete(key)
    this.#last.set(key, holders)
    const [oldest] = this.#last.keys()
    if (this.#last.size > MAX_REMEMBERED && oldest !== undefined) this.#last.delete(oldest)
    return { holders, peers }
  }
}
