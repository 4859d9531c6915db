/** Where a peer serves the API over TCP. Light to import: the command line starts with it. */

/** 7480 beside 7400. */
const PORT_OFFSET = 80

export interface Listening {
  readonly host: string
  readonly port: number
  /** Named by the config, so that it must be had. */
  readonly named: boolean
}

/** Undefined: nowhere, also where the port of `peerListen` leaves none above it. */
export function listeningOf(listen: string | undefined, peerListen: string): Listening | undefined {
  if (listen === 'off') return undefined
  if (listen !== undefined) {
    const at = listen.lastIndexOf(':')
    return { host: listen.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(listen.slice(at + 1)), named: true }
  }
  const port = Number(peerListen.slice(peerListen.lastIndexOf('/') + 1)) + PORT_OFFSET
  return port > 65_535 ? undefined : { host: '127.0.0.1', port, named: false }
}

export const isLoopbackHost = (host: string): boolean => /^(127\.\d+\.\d+\.\d+|::1)$/.test(host)
