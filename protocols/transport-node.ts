/** libp2p as this project uses it: TCP, Noise, yamux, and nothing that speaks by itself (identify, ping, discovery). */
import { noise } from '@chainsafe/libp2p-noise'
import type { Libp2p } from '@libp2p/interface'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'
import { noiseCrypto } from './noise-crypto.ts'
import type { ConnectionGater, PrivateKey } from './stream.ts'
import { cutQuietly, readLean, writeWhole } from './transport-lean.ts'

/** For one connection. A handshake takes 5 ms, but with 3 s here five peers at a load of 16 on two cores took 19 s to link. */
export const DIAL_TIMEOUT_MS = 6_000
/** Of one protocol on one connection, and of all. */
export const MAX_STREAMS = 2
/** As many as a config may name. libp2p takes its bounds once, and members come and go. */
const MAX_MEMBERS = 100

export interface NodeOptions {
  readonly privateKey: PrivateKey
  /** Multiaddrs; none where the node only dials. */
  readonly listen: readonly string[]
  readonly gater: ConnectionGater
}

/** A node that is not started. */
export function createNode({ privateKey, listen, gater }: NodeOptions): Promise<Libp2p> {
  return createLibp2p({
    start: false,
    privateKey,
    addresses: { listen: [...listen] },
    transports: [leanTcp()],
    connectionEncrypters: [leanNoise()],
    streamMuxers: [
      yamux({
        enableKeepAlive: false,
        maxInboundStreams: MAX_STREAMS,
        maxOutboundStreams: MAX_STREAMS,
        // The read buffer must hold what was granted before a pause: window and slack, or yamux resets the stream.
        streamOptions: { maxStreamWindowSize: 4 << 20, maxReadBufferLength: 8 << 20 }
      })
    ],
    connectionGater: gater,
    connectionMonitor: { enabled: false },
    connectionManager: {
      // A member has three connections each way, and while it is linked anew as many again.
      maxConnections: 12 * MAX_MEMBERS,
      inboundConnectionThreshold: 1_000,
      maxIncomingPendingConnections: 3 * MAX_MEMBERS + 32,
      inboundUpgradeTimeout: DIAL_TIMEOUT_MS,
      addressDialTimeout: DIAL_TIMEOUT_MS,
      dialTimeout: DIAL_TIMEOUT_MS,
      reconnectRetries: 0
    }
  })
}

/** Noise, with what it and the connection below it do for each message made cheaper. */
function leanNoise(): ReturnType<typeof noise> {
  const make = noise({ crypto: noiseCrypto })
  return components => {
    const encrypter = make(components)
    const { secureInbound, secureOutbound } = encrypter
    encrypter.secureInbound = (connection, options) => {
      writeWhole(connection)
      return secureInbound.call(encrypter, connection, options).then(secured => lean(secured, connection))
    }
    encrypter.secureOutbound = (connection, options) => {
      writeWhole(connection)
      return secureOutbound.call(encrypter, connection, options).then(secured => lean(secured, connection))
    }
    return encrypter
  }
}

function lean<Secured extends { readonly connection: object }>(secured: Secured, below: object): Secured {
  cutQuietly(secured.connection, below)
  return secured
}

function leanTcp(): ReturnType<typeof tcp> {
  const make = tcp({ inboundSocketInactivityTimeout: 0, outboundSocketInactivityTimeout: 0 })
  return components => {
    const transport = make(components)
    const createListener = transport.createListener.bind(transport)
    transport.createListener = options => {
      const listener = createListener(options)
      readLean(listener)
      return listener
    }
    return transport
  }
}
