/**
 * Where to dial one member: at its configured address first, and after each failure in turn with those that mDNS told of.
 * Whatever an address promises, only the member's Noise identity makes a link; so the worst that a lying neighbour can do
 * is to waste every second dial.
 */

/** What mDNS said last; more than a host has addresses on one LAN, a guess. */
const MAX_FOUND = 4

export class MemberAddresses {
  #configured: string
  #found: readonly string[] = []
  #failures = 0

  constructor(configured: string) {
    this.#configured = configured
  }

  /** For the next dial. An address that worked is the next one again. */
  get next(): string {
    const found = this.#failures % 2 === 0 ? undefined : this.#found[(this.#failures >> 1) % this.#found.length]
    return found ?? this.#configured
  }

  isFound(address: string): boolean {
    return address !== this.#configured && this.#found.includes(address)
  }

  failed(): void {
    this.#failures++
  }

  /** True where this is news: it is dialled next then. */
  configure(address: string): boolean {
    if (address === this.#configured) return false
    this.#configured = address
    this.#failures = 0
    return true
  }

  found(address: string): void {
    if (address === this.#configured || this.#found.includes(address)) return
    this.#found = [address, ...this.#found].slice(0, MAX_FOUND)
  }
}

/** `ADDRESS:PORT` of a multiaddress, IPv6 as in a URL; undefined where it is not of TCP over IP. */
export function remoteOf(address: string): string | undefined {
  const [, version, ip = '', port] = /^\/ip([46])\/([^/]+)\/tcp\/(\d+)(?:\/|$)/.exec(address) ?? []
  if (version === undefined) return undefined
  return version === '4' ? `${ip}:${port}` : `${new URL(`http://[${ip}]`).hostname}:${port}`
}
