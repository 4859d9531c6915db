/**
 * The dashboard's files, as they were built: read once, compressed once, served from memory by the names that were found, so that
 * no request names a file of this host. They are the same for everybody and hold no secret, so they take no token.
 */
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { extname, join, relative, sep } from 'node:path'
import { promisify } from 'node:util'
import { brotliCompress, gzip } from 'node:zlib'

export interface StaticFiles {
  /** False where the request is not for one of them: then nothing was done. */
  answer(request: IncomingMessage, response: ServerResponse): boolean
}

const typeOf: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.woff2': 'font/woff2',
  '.webmanifest': 'application/manifest+json'
}

/** Scripts, styles and data of this peer only; nothing inline, nothing framed, no form sent anywhere. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "font-src 'self'",
  "connect-src 'self'",
  "manifest-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'"
].join('; ')

interface File {
  readonly type: string
  readonly etag: string
  readonly bytes: Readonly<Record<Coding, Buffer>>
}

type Coding = 'identity' | 'gzip' | 'br'

/** Undefined where there is no such folder: it was not built. */
export async function createStatic(folder: string): Promise<StaticFiles | undefined> {
  const files = await readFiles(folder)
  if (files === undefined) return undefined
  return {
    answer: (request, response) => {
      if (request.method !== 'GET' && request.method !== 'HEAD') return false
      const path = (request.url ?? '/').replace(/[?#].*$/s, '')
      const file = files.get(path === '/' ? '/index.html' : path)
      if (file !== undefined) sendFile(request, response, file)
      return file !== undefined
    }
  }
}

async function readFiles(folder: string): Promise<ReadonlyMap<string, File> | undefined> {
  const found = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => undefined)
  if (found === undefined) return undefined
  const paths = found.filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name))
  const files = paths.map(async path => {
    const bytes = await readFile(path)
    const file: File = {
      type: typeOf[extname(path)] ?? 'application/octet-stream',
      etag: `"${createHash('sha256').update(bytes).digest('base64url').slice(0, 22)}"`,
      bytes: { identity: bytes, gzip: await promisify(gzip)(bytes), br: await promisify(brotliCompress)(bytes) }
    }
    return [`/${relative(folder, path).split(sep).join('/')}`, file] as const
  })
  return new Map(await Promise.all(files))
}

function sendFile({ method, headers }: IncomingMessage, response: ServerResponse, file: File): void {
  const coding = codingOf(headers['accept-encoding'])
  const body = file.bytes[coding]
  response.setHeader('etag', file.etag)
  response.setHeader('vary', 'accept-encoding')
  response.setHeader('cache-control', 'no-cache') // kept, but asked for again: a peer may have been upgraded
  response.setHeader('content-security-policy', POLICY)
  if (headers['if-none-match']?.split(/, */).includes(file.etag) === true) {
    response.writeHead(304).end()
    return
  }
  response.writeHead(200, {
    'content-type': file.type,
    'content-length': body.length,
    ...(coding !== 'identity' && { 'content-encoding': coding })
  })
  response.end(method === 'HEAD' ? undefined : body)
}

function codingOf(accept = ''): Coding {
  const accepted = accept.split(',').flatMap(each => {
    const [name = '', ...rules] = each.split(';').map(part => part.trim().toLowerCase())
    return rules.some(rule => /^q=0(\.0*)?$/.test(rule)) ? [] : [name]
  })
  return accepted.includes('br') ? 'br' : accepted.includes('gzip') ? 'gzip' : 'identity'
}
