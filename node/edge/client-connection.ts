/** How a client reaches a peer: through the socket of one on this host, or over TCP with a token. */
import type { RequestOptions } from 'node:http'
import { isLoopbackHost } from '../../config/listening.ts'
import { UsageError } from '../errors.ts'

export interface RemotePeer {
  /** e.g. "https://10.0.0.1:7480" */
  readonly url: string
  readonly token: string
  /** PEM: the only certificates that are trusted. Absent: those that Node trusts. */
  readonly ca?: string | undefined
}

export interface Connection {
  readonly secure: boolean
  readonly options: RequestOptions & { readonly ca?: string }
  /** For messages. */
  readonly name: string
  /** Of a peer over TCP: scheme, host and port. */
  readonly origin?: string
}

/** `where`: the path of a socket, or a peer elsewhere. UsageError API_URL. */
export function connectionTo(where: string | RemotePeer): Connection {
  if (typeof where === 'string') return { secure: false, options: { socketPath: where }, name: where }
  const { token, ca } = where
  const url = parsed(where.url)
  const secure = url.protocol === 'https:'
  const host = url.hostname.replace(/^\[|\]$/g, '')
  if (!secure && !isLoopbackHost(host) && host !== 'localhost') {
    throw wrong(where.url, 'beyond this host it must begin with https://, or the token could be read on its way')
  }
  const port = url.port === '' ? (secure ? 443 : 80) : Number(url.port)
  const headers = { authorization: `Bearer ${token}` }
  return {
    secure,
    options: { host, port, headers, ...(ca !== undefined && { ca }) },
    name: url.origin,
    origin: url.origin
  }
}

function parsed(text: string): URL {
  let url: URL
  try {
    url = new URL(text)
  } catch (cause) {
    throw new UsageError('API_URL', `${text} is no URL such as https://10.0.0.1:7480`, { cause })
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw wrong(text, 'it must begin with https:// or http://')
  if (url.username !== '' || url.password !== '') throw wrong('the URL', 'a token is named by a file, not in the URL')
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '') throw wrong(text, 'it must end after the port')
  return url
}

const wrong = (url: string, why: string) => new UsageError('API_URL', `${url} cannot be used: ${why}`)
