/**
 * What the members have said of themselves, for whoever places columns and VMs: labels, free space, memory; and what they understand.
 * This peer says so, too (`protocols/storage-facts.ts`, `protocols/host-facts.ts`).
 */
import { isDeepStrictEqual } from 'node:util'
import type { Labels } from '../../config/schema.ts'
import type { PeerId } from '../../protocols/core.ts'
import { HOST_PROTOCOL, type HostFacts, parseHostFacts } from '../../protocols/host-facts.ts'
import { parseStorageFacts, STORAGE_PROTOCOL, type StorageFacts } from '../../protocols/storage-facts.ts'
import { messageOf } from '../errors.ts'
import { coarseFree, type StoragePeer } from '../planning/domains.ts'
import type { Clock, ControlBus, Log, Transport } from '../ports.ts'

/** How often free space is looked at. A guess: a disk of some GB does not fill faster at 1 GB/s. */
const LOOK_EVERY_MS = 10_000
/** All are told again after so many looks, though nothing changed: a message may have been lost. A guess. */
const TELL_EVERY = 6

export interface StoragePeersDeps {
  readonly self: PeerId
  readonly labels: Labels
  readonly bus: ControlBus
  readonly transport: Pick<Transport, 'onConnection'>
  readonly clock: Clock
  readonly log: Log
  readonly members: () => readonly PeerId[]
}

export class StoragePeers {
  readonly #deps: StoragePeersDeps
  readonly #said = new Map<PeerId, StorageFacts>()
  readonly #hosts = new Map<PeerId, HostFacts>()
  #ownHost: HostFacts | undefined
  #own: StorageFacts
  #started = false
  #storing = false
  #looks = 0
  #stopped = false
  #cancel: () => void = () => {}

  constructor(deps: StoragePeersDeps) {
    this.#deps = deps
    this.#own = { labels: deps.labels, freeBytes: null }
    deps.bus.on(STORAGE_PROTOCOL, parseStorageFacts, (from, facts) => {
      if (deps.members().includes(from)) this.#said.set(from, facts)
    })
    deps.bus.on(HOST_PROTOCOL, parseHostFacts, (from, facts) => {
      if (deps.members().includes(from)) this.#hosts.set(from, facts)
    })
    deps.transport.onConnection((peer, connected) => {
      if (connected && this.#started) this.#send(peer)
    })
  }

  /** All that is known of these, in their order. */
  readonly about = (peers: readonly PeerId[]): StoragePeer[] =>
    peers.map(peer => {
      const isSelf = peer === this.#deps.self
      const facts = isSelf ? this.#own : this.#said.get(peer)
      const host = isSelf ? this.#ownHost : this.#hosts.get(peer)
      if (facts === undefined) return { peer, ...host }
      const { labels, freeBytes } = facts
      return { peer, labels, ...(freeBytes === null ? {} : { freeBytes }), ...host }
    })

  /** `freeBytes`: what this peer's store may still take; undefined: it has none (a witness). All are told from now on. */
  start(freeBytes: (() => Promise<number>) | undefined, host: HostFacts): void {
    this.#started = true
    this.#storing = freeBytes !== undefined
    this.#ownHost = host
    void this.#look(freeBytes)
  }

  stop(): void {
    this.#stopped = true
    this.#cancel()
  }

  async #look(freeBytes: (() => Promise<number>) | undefined): Promise<void> {
    const { clock, labels, log } = this.#deps
    try {
      const free = freeBytes && coarseFree(await freeBytes(), this.#own.freeBytes ?? undefined)
      const now = { labels, freeBytes: free ?? null }
      if (!isDeepStrictEqual(now, this.#own) || this.#looks % TELL_EVERY === 0) this.#tell(now)
    } catch (error) {
      log.warn({ error: messageOf(error) }, 'the free space of the store is not known')
    }
    this.#looks++
    if (!this.#stopped) this.#cancel = clock.after(LOOK_EVERY_MS, () => void this.#look(freeBytes))
  }

  #tell(facts: StorageFacts): void {
    const { self, members } = this.#deps
    this.#own = facts
    const all = members()
    for (const said of [this.#said, this.#hosts]) {
      for (const peer of said.keys()) if (!all.includes(peer)) said.delete(peer)
    }
    for (const peer of all) if (peer !== self) this.#send(peer)
  }

  #send(peer: PeerId): void {
    if (this.#storing) this.#deps.bus.send(peer, STORAGE_PROTOCOL, this.#own)
    if (this.#ownHost !== undefined) this.#deps.bus.send(peer, HOST_PROTOCOL, this.#ownHost)
  }
}
