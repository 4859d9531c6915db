/**
 * A bucket of an S3-compatible service as a second home (Amazon S3 API Reference: PutObject, GetObject, HeadObject,
 * ListObjects, DeleteObject, and Signature Version 4). Of the two ways to list this is the older, which every such server has,
 * and goes on behind a name; the newer one gives tokens. A PutObject that was answered is durable and whole, and its SHA-256 is
 * signed with it, so that what arrives otherwise is refused. With an endpoint the bucket is the first part of the path, as
 * every such server takes it; without one it is Amazon's, and the bucket is a part of the host's name.
 */
import { hash } from 'node:crypto'
import { AwsClient } from 'aws4fetch'
import { DiapauseError, messageOf } from '../errors.ts'
import type { ObjectStore } from '../ports.ts'
import { MAX_LISTED, MAX_OBJECT_BYTES, tooMany } from './layout.ts'
import { checkName, isName } from './names.ts'

/** Of one request with all of its body. A minute: 4 MiB at 0.6 Mb/s; a guess. */
const REQUEST_LIMIT_MS = 60_000
/** Answers that mean "later" (429 and 5xx) are asked for again so often, by aws4fetch, with pauses that double. A guess. */
const RETRIES = 4

export interface S3Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string | undefined
}

export interface S3Place {
  readonly bucket: string
  /** '' or folders, without a slash at the end. */
  readonly prefix: string
  readonly region: string
  /** e.g. http://10.0.0.9:9000; absent: Amazon's. */
  readonly endpoint?: string | undefined
}

interface Call {
  readonly key?: string
  readonly query?: Readonly<Record<string, string>>
  readonly body?: Uint8Array
}

export function openS3(place: S3Place, credentials: S3Credentials): ObjectStore {
  const { bucket, prefix, endpoint } = place
  const at = endpoint === undefined ? '' : `?endpoint=${endpoint}`
  const url = `s3://${bucket}${prefix === '' ? '' : `/${prefix}`}${at}`
  const send = sending(url, place, credentials)
  const keyOf = (name: string): string => {
    checkName(name)
    return prefix === '' ? name : `${prefix}/${name}`
  }
  return {
    url,

    async put(name, bytes) {
      await done(await send('PUT', { key: keyOf(name), body: bytes }), url, name)
    },

    get: async name => await bytesOf(await send('GET', { key: keyOf(name) }), url, name),

    async stat(name) {
      const response = await send('HEAD', { key: keyOf(name) })
      if (response.status === 404) return undefined
      if (!response.ok) throw await refusal(response, url, name)
      return {
        bytes: Number(response.headers.get('content-length') ?? 0),
        putMs: Date.parse(response.headers.get('last-modified') ?? '') || 0
      }
    },

    async *list(wanted) {
      const folder = prefix === '' ? '' : `${prefix}/`
      let after = ''
      let seen = 0
      for (;;) {
        const query = { prefix: `${folder}${wanted}`, ...(after !== '' && { marker: after }) }
        const text = Buffer.from(await bytesOf(await send('GET', { query }), url, wanted)).toString()
        const { objects, more } = readListing(text)
        seen += objects.length
        if (seen > MAX_LISTED) throw tooMany(url, `${MAX_LISTED} objects under ${wanted}`)
        for (const { key, ...facts } of objects) {
          const name = key.slice(folder.length)
          if (isName(name)) yield { name, ...facts }
        }
        const last = objects.at(-1)?.key ?? ''
        if (!more) return
        if (last <= after) throw new DiapauseError('HOME_UNREACHABLE', `${url} lists the same names again and again`)
        after = last
      }
    },

    async delete(name) {
      const response = await send('DELETE', { key: keyOf(name) })
      if (response.status !== 404) await done(response, url, name)
    }
  }
}

function sending(url: string, { bucket, region, endpoint }: S3Place, credentials: S3Credentials) {
  const { sessionToken, ...keys } = credentials
  const session = sessionToken === undefined ? {} : { sessionToken }
  const client = new AwsClient({ ...keys, ...session, service: 's3', region, retries: RETRIES })
  const base = endpoint === undefined ? `https://${bucket}.s3.${region}.amazonaws.com` : `${endpoint}/${bucket}`
  return async (method: string, { key = '', query = {}, body }: Call): Promise<Response> => {
    const target = new URL(key === '' ? base : `${base}/${key}`)
    for (const [name, value] of Object.entries(query)) target.searchParams.set(name, value)
    const digest = hash('sha256', body ?? new Uint8Array())
    try {
      return await client.fetch(target, {
        method,
        headers: { 'x-amz-content-sha256': digest },
        signal: AbortSignal.timeout(REQUEST_LIMIT_MS),
        redirect: 'error',
        ...(body === undefined ? {} : { body: body as Uint8Array<ArrayBuffer> })
      })
    } catch (cause) {
      const message = `${url} does not answer: ${messageOf(cause)}${reasonOf(cause)}`
      throw new DiapauseError('HOME_UNREACHABLE', message, { cause })
    }
  }
}

/** The message of `fetch`'s "fetch failed" says nothing; its cause does. */
const reasonOf = (cause: unknown): string =>
  cause instanceof Error && cause.cause instanceof Error ? ` (${cause.cause.message})` : ''

async function done(response: Response, url: string, name: string): Promise<void> {
  if (!response.ok) throw await refusal(response, url, name)
  await response.body?.cancel()
}

/** What comes is not believed to be small. */
async function bytesOf(response: Response, url: string, name: string): Promise<Uint8Array> {
  if (!response.ok) throw await refusal(response, url, name)
  const parts: Uint8Array[] = []
  let bytes = 0
  try {
    for await (const part of (response.body ?? []) as AsyncIterable<Uint8Array>) {
      parts.push(part)
      bytes += part.length
      if (bytes > MAX_OBJECT_BYTES) break
    }
  } catch (cause) {
    throw new DiapauseError('HOME_UNREACHABLE', `${url} broke off in the middle of ${name}`, { cause })
  }
  if (bytes <= MAX_OBJECT_BYTES) return new Uint8Array(Buffer.concat(parts))
  throw new DiapauseError('HOME_DAMAGED', `${name} in ${url} is larger than anything that was put there`)
}

async function refusal(response: Response, url: string, name: string): Promise<DiapauseError> {
  const { status } = response
  const text = (await response.text().catch(() => '')).slice(0, 4096)
  const said = [tagIn(text, 'Code'), tagIn(text, 'Message')].filter(part => part !== undefined).join(': ')
  const details = { status, name }
  if (status === 404 && tagIn(text, 'Code') !== 'NoSuchBucket') {
    return new DiapauseError('HOME_MISSING', `${name} is not in ${url}`, { details })
  }
  const answer = `${url} answered ${status}${said === '' ? '' : ` (${said.slice(0, 300)})`} for ${name}`
  if (status === 507) return new DiapauseError('HOME_FULL', `${answer}: it is full`, { details })
  if (status < 500 && status !== 429) {
    return new DiapauseError('HOME_REFUSED', `${answer}: look at bucket, credentials and clock`, { details })
  }
  return new DiapauseError('HOME_UNREACHABLE', answer, { details })
}

interface Listing {
  /** In the order of their names. */
  readonly objects: readonly { readonly key: string; readonly bytes: number; readonly putMs: number }[]
  readonly more: boolean
}

/** A page of ListObjects, whatever it is: what is no entry of one is not there. */
export function readListing(xml: string): Listing {
  const objects = [...xml.matchAll(/<Contents>(.*?)<\/Contents>/gs)].map(([, entry = '']) => ({
    key: tagIn(entry, 'Key') ?? '',
    bytes: Number(tagIn(entry, 'Size') ?? 0),
    putMs: Date.parse(tagIn(entry, 'LastModified') ?? '') || 0
  }))
  return { objects, more: tagIn(xml, 'IsTruncated') === 'true' }
}

const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

function tagIn(xml: string, tag: string): string | undefined {
  const [, text] = new RegExp(`<${tag}>([^<]*)</${tag}>`).exec(xml) ?? []
  return text?.replace(/&(\w+);/g, (whole, name: string) => ENTITIES[name] ?? whole)
}
