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

/** A URL without a path. Whoever listens on all addresses is found on this host by loopback. */
export function originOf({ host, port, tls }: { host: string; port: number; tls: boolean }): string {
  const anywhere: Readonly<Record<string, string>> = { '0.0.0.0': '127.0.0.1', '::': '::1' }
  const reachable = anywhere[host] ?? host
  return `${tls ? 'https' : 'http'}://${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`
}

export const isLoopbackHost = (host: string): boolean => /^(127\.\d+\.\d+\.\d+|::1)$/.test(host)
