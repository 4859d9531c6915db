/**
 * What a request over TCP must look like before anything of it is done. A page of another site that a person has open can make
 * their browser send requests here: what it sends names another origin, or, where its name was made to point here (DNS
 * rebinding), another host. A token is never sent by a browser by itself, so each of these alone would do no harm; they are
 * refused all the same. Pure.
 */
import { isIP } from 'node:net'
import type { IncomingHttpHeaders } from 'node:http'
import { DiapauseError } from '../errors.ts'

/** Throws API_HOST, API_ORIGIN. `isName`: of those by which this peer may be called, beside its addresses and "localhost"; lower case. */
export function checkHeaders(headers: IncomingHttpHeaders, isName: (name: string) => boolean): void {
  const { host, origin } = headers
  if (host === undefined || !isOurs(host, isName)) {
    throw new DiapauseError(
      'API_HOST',
      `this peer is not called ${JSON.stringify((host ?? '').slice(0, 100))}: use its address, or name it in api.names of its config`
    )
  }
  const site = headers['sec-fetch-site']
  const foreign = site === 'cross-site' || site === 'same-site'
  if ((origin !== undefined && !isSameHost(origin, host)) || foreign) {
    throw new DiapauseError('API_ORIGIN', 'pages of other sites may ask nothing here')
  }
}

function isOurs(host: string, isName: (name: string) => boolean): boolean {
  const name = /^(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:\d{1,5})?$/.exec(host)?.[1]?.toLowerCase()
  if (name === undefined) return false
  // No name was asked for an address: whoever sent it meant us.
  if (isIP(name.replace(/^\[|\]$/g, '')) !== 0) return true
  const plain = name.replace(/\.$/, '')
  return plain === 'localhost' || isName(plain)
}

/** By host and port: what ends TLS in front of a peer makes another scheme of it. */
function isSameHost(origin: string, host: string): boolean {
  try {
    const { protocol, host: from } = new URL(origin)
    return (protocol === 'http:' || protocol === 'https:') && new URL(`${protocol}//${host}`).host === from
  } catch {
    return false // "null", of a sandboxed page
  }
}

/** The token of `Authorization: Bearer TOKEN` (RFC 6750, section 2.1); its length is bounded by that of all headers. */
export const bearerOf = ({ authorization }: IncomingHttpHeaders): string | undefined =>
  /^Bearer +([A-Za-z0-9._~+/-]+=*)$/i.exec(authorization ?? '')?.[1]
