/**
 * A bucket of an S3-compatible service as a second home (Amazon S3 API Reference: PutObject, GetObject, HeadObject,
 * ListObjects, DeleteObject, and Signature Version 4). Of the two ways to list this is the older, which every such server has,
 * and goes on behind a name; the newer one gives tokens. A PutObject that was answered is durable and whole, and its SHA-256 is
 * signed with it, so that what arrives otherwise is refused; as not all servers look, the MD5 in the answer is compared, too. With an endpoint the bucket is the first part of the path, as
 * every such server takes it; without one it is Amazon's, and the bucket is a part of the host's name.
 */
import { hash } from 'node:crypto'
import { AwsClient } from 'aws4fetch'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { ObjectStore, StoredFacts } from '../ports.ts'
import { MAX_LISTED, MAX_OBJECT_BYTES, tooMany } from './layout.ts'
import { checkName, isName } from './names.ts'
import { checkWanted, waitWanted, whileWanted } from './wanted.ts'

export interface S3Limits {
  /** Of one request with all of its body. */
  readonly requestMs: number
  /** What is not answered, not to its end or with "later" (429 and 5xx) is asked for again after each of these. */
  readonly pausesMs: readonly number[]
}

/** A minute: 4 MiB at 0.6 Mb/s. All pauses together: a server that is started anew. Guesses. */
const LIMITS: S3Limits = { requestMs: 60_000, pausesMs: [100, 500, 2_000, 5_000] }

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
  readonly signal?: AbortSignal | undefined
}

export function openS3(place: S3Place, credentials: S3Credentials, limits = LIMITS): ObjectStore {
  const { bucket, prefix, endpoint } = place
  const at = endpoint === undefined ? '' : `?endpoint=${endpoint}`
  const url = `s3://${bucket}${prefix === '' ? '' : `/${prefix}`}${at}`
  const send = sending(place, credentials, url, limits.requestMs)
  const again = <T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> => retried(work, limits.pausesMs, signal)
  let etagsSayMore = true
  const keyOf = (name: string): string => {
    checkName(name)
    return prefix === '' ? name : `${prefix}/${name}`
  }
  return {
    url,

    async put(name, bytes, signal) {
      await again(async () => {
        const { headers } = done(await send('PUT', { key: keyOf(name), body: bytes, signal }), url, name)
        const etag = headers.get('etag')?.replaceAll('"', '') ?? ''
        if (!etagsSayMore || !/^[0-9a-f]{32}$/.test(etag) || etag === hash('md5', bytes)) return
        // Either it came otherwise than it was sent, or this server's ETags are no MD5 (as where it encrypts): it is looked at, once.
        // No signal ends that: what came otherwise is not to stay.
        const stored = done(await send('GET', { key: keyOf(name) }), url, name)
        if (Buffer.compare(stored.body, bytes) !== 0) {
          await send('DELETE', { key: keyOf(name) }) // by name and size it would be taken for what it should be
          throw new DiapauseError('HOME_UNREACHABLE', `${url} has stored ${name} otherwise than it was sent`)
        }
        etagsSayMore = false
      }, signal)
    },

    get: (name, signal) =>
      again(async () => done(await send('GET', { key: keyOf(name), signal }), url, name).body, signal),

    stat: (name, signal) =>
      again(async () => {
        const answer = await send('HEAD', { key: keyOf(name), signal })
        return answer.status === 404 ? undefined : factsOf(done(answer, url, name))
      }, signal),

    async *list(wanted, signal) {
      const folder = prefix === '' ? '' : `${prefix}/`
      let after = ''
      let seen = 0
      for (;;) {
        const query = { prefix: `${folder}${wanted}`, ...(after !== '' && { marker: after }) }
        const page = await again(async () => done(await send('GET', { query, signal }), url, wanted), signal)
        const text = Buffer.from(page.body).toString()
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

    delete: (name, signal) =>
      again(async () => {
        const answer = await send('DELETE', { key: keyOf(name), signal })
        if (answer.status !== 404) done(answer, url, name)
      }, signal)
  }
}

const factsOf = ({ headers }: Answer): StoredFacts => ({
  bytes: Number(headers.get('content-length') ?? 0),
  putMs: Date.parse(headers.get('last-modified') ?? '') || 0
})

/** All that is asked may be asked twice. HOME_CANCELLED. */
async function retried<T>(
  work: () => Promise<T>,
  [pauseMs, ...more]: readonly number[],
  signal: AbortSignal | undefined
): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (pauseMs === undefined || !hasCode(error, 'HOME_UNREACHABLE')) throw error
  }
  await waitWanted(signal, over => {
    const timer = setTimeout(over, pauseMs)
    return () => clearTimeout(timer)
  })
  return await retried(work, more, signal)
}

/** What the server says, read to its end. */
interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: Uint8Array
}

function sending(place: S3Place, credentials: S3Credentials, url: string, requestMs: number) {
  const { bucket, region, endpoint } = place
  const { sessionToken, ...keys } = credentials
  const session = sessionToken === undefined ? {} : { sessionToken }
  const client = new AwsClient({ ...keys, ...session, service: 's3', region })
  const base = endpoint === undefined ? `https://${bucket}.s3.${region}.amazonaws.com` : `${endpoint}/${bucket}`
  return async (method: string, { key = '', query = {}, body, signal: wanted }: Call): Promise<Answer> => {
    const target = new URL(key === '' ? base : `${base}/${key}`)
    for (const [name, value] of Object.entries(query)) target.searchParams.set(name, value)
    const digest = hash('sha256', body ?? new Uint8Array())
    const request = await client.sign(target, {
      method,
      headers: { 'x-amz-content-sha256': digest },
      redirect: 'error',
      ...(body === undefined ? {} : { body: body as Uint8Array<ArrayBuffer> })
    })
    try {
      return await within(requestMs, wanted, async signal => await answerOf(await fetch(request, { signal })))
    } catch (cause) {
      if (cause instanceof DiapauseError) throw cause
      const message = `${url} does not answer, or not to the end: ${messageOf(cause)}${reasonOf(cause)}`
      throw new DiapauseError('HOME_UNREACHABLE', message, { cause })
    }
  }
}

/** Node forgets signals that nobody holds, and with them the end of a request: so the waiting ends by itself, too. HOME_CANCELLED. */
async function within<T>(
  ms: number,
  wanted: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>
): Promise<T> {
  checkWanted(wanted)
  const ending = new AbortController()
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => {
    const error = new Error(`nothing in ${ms} ms`)
    late.reject(error)
    ending.abort(error)
  }, ms)
  const working = work(ending.signal)
  working.catch(() => {}) // it may end after we have
  try {
    return await whileWanted(wanted, () => Promise.race([working, late.promise]))
  } catch (error) {
    ending.abort() // one that nobody waits for keeps no socket
    throw error
  } finally {
    clearTimeout(timer)
  }
}

/** What comes is not believed to be small: HOME_DAMAGED. */
async function answerOf(response: Response): Promise<Answer> {
  const parts: Uint8Array[] = []
  let bytes = 0
  for await (const part of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    parts.push(part)
    bytes += part.length
    if (bytes > MAX_OBJECT_BYTES)
      throw new DiapauseError('HOME_DAMAGED', `${response.url} is larger than anything that was put there`)
  }
  const { status, headers } = response
  return { status, headers, body: new Uint8Array(Buffer.concat(parts)) }
}

/** The message of `fetch`'s "fetch failed" says nothing; its cause does. */
const reasonOf = (cause: unknown): string =>
  cause instanceof Error && cause.cause instanceof Error ? ` (${cause.cause.message})` : ''

function done(answer: Answer, url: string, name: string): Answer {
  if (answer.status >= 200 && answer.status < 300) return answer
  throw refusal(answer, url, name)
}

function refusal({ status, body }: Answer, url: string, name: string): DiapauseError {
  const text = Buffer.from(body.subarray(0, 4096)).toString()
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
