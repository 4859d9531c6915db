/**
 * Members find each other's addresses on a LAN by mDNS (RFC 6762, in the form of libp2p's specification). What is heard is
 * a hint for the next dial and never lets anyone in: only members are listened to, and only their Noise identity makes a
 * link. Said aloud are the peer id, which any handshake shows, and private addresses; not the cluster's name.
 *
 * Every peer answers every question with a multicast, so questions at a steady pace would cost n² packets. Therefore a
 * peer asks only while a member is missing, with pauses that double.
 */
import { createHash } from 'node:crypto'
import type { ComponentLogger, PeerDiscovery, Startable } from '@libp2p/interface'
import { mdns, type MulticastDNSComponents } from '@libp2p/mdns'
import type { Multiaddr } from '@multiformats/multiaddr'
import { messageOf } from '../node/errors.ts'
import type { Clock, Log } from '../node/ports.ts'
import type { PeerId } from './core.ts'

/** RFC 6762, section 5.2: at least a second, then at least doubled. */
const FIRST_PAUSE_MS = 1_000
/** A guess: with 100 peers of which one is dead it makes 165 packets of 300 bytes a second. */
const LONGEST_PAUSE_MS = 60_000
/** The library would ask at one pace for ever: its timer is set to what setInterval can hold. */
const NEVER_MS = 2 ** 31 - 1

/** At most 15 characters, as RFC 6763, section 7.2 wants. */
export const serviceName = (cluster: string): string =>
  `_dp-${createHash('sha256').update(`diapause mdns ${cluster}`).digest('hex').slice(0, 12)}._udp.local`

export interface DiscoveryOptions {
  readonly cluster: string
  /** What this peer listens on, with its id; asked at each answer. */
  addresses(): Multiaddr[]
  /** Whether it is worth asking. */
  isSearching(): boolean
  /** Somebody says that `peer` is at `addresses`; nothing of it is proven. */
  onFound(peer: PeerId, addresses: readonly string[]): void
  readonly logger: ComponentLogger
  readonly clock: Clock
  readonly log: Log
}

export interface Discovery {
  /** Asks soon, and then with short pauses again. */
  hurry(): void
  stop(): Promise<void>
}

/** What the library's service has and its type does not tell of. */
interface Service extends PeerDiscovery, Startable {
  readonly mdns?: {
    query(packet: { questions: { name: string; type: 'PTR' }[] }, sent: (error: Error | null) => void): void
    on(event: 'error', handler: (error: Error) => void): void
  }
}

/** Never rejects: where mDNS does not work one line is logged, and configured addresses have to do. */
export async function startDiscovery(options: DiscoveryOptions): Promise<Discovery> {
  const { addresses, isSearching, onFound, logger, clock, log } = options
  const serviceTag = serviceName(options.cluster)
  const addressManager = { getAddresses: () => outward(addresses()) } as MulticastDNSComponents['addressManager']
  const service = mdns({ serviceTag, interval: NEVER_MS })({ addressManager, logger }) as Service
  let pauseMs = FIRST_PAUSE_MS
  let cancel = (): void => {}
  let complained = false

  const complain = (error: unknown): void => {
    if (complained) return
    complained = true
    const why = 'mDNS does not work here, members are found at their configured addresses only'
    log.warn({ error: messageOf(error), mend: 'a route for 224.0.0.0/4, or peer.mdns = false' }, why)
  }
  const ask = (): void => {
    const questions = [{ name: serviceTag, type: 'PTR' as const }]
    service.mdns?.query({ questions }, error => {
      if (error !== null) complain(error)
    })
  }
  const askLater = (): void => {
    cancel = clock.after(pauseMs, () => {
      pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)
      if (isSearching()) ask()
      askLater()
    })
  }

  service.addEventListener('peer', ({ detail }) => {
    onFound(detail.id.toString(), detail.multiaddrs.map(String).filter(isUsable))
  })
  try {
    await service.start()
    service.mdns?.on('error', complain)
    ask()
  } catch (error) {
    complain(error)
  }
  askLater()
  return {
    hurry() {
      if (pauseMs === FIRST_PAUSE_MS) return
      cancel()
      pauseMs = FIRST_PAUSE_MS
      askLater()
    },
    async stop() {
      cancel()
      await service.stop()
    }
  }
}

/** Names are not looked up, and nothing but TCP is dialled, because a stranger says so. */
export const isUsable = (address: string): boolean => /^\/ip[46]\/[0-9a-f.:]{2,39}\/tcp\/\d{1,5}$/.test(address)

/** Loopback is of use to a neighbour only where all peers are on one machine and listen nowhere else. */
function outward(addresses: readonly Multiaddr[]): Multiaddr[] {
  const others = addresses.filter(address => !/^\/(ip4\/127\.|ip6\/::1\/)/.test(address.toString()))
  return others.length > 0 ? others : [...addresses]
}
