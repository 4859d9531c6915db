/** A second home by its URL. */
import { DiapauseError, UsageError } from '../errors.ts'
import type { ObjectStore } from '../ports.ts'
import { openDirectory } from './directory.ts'
import { openS3, type S3Credentials, type S3Limits, type S3Place } from './s3.ts'

const FORMS = 'dir:/FOLDER or s3://BUCKET[/PREFIX][?endpoint=http://HOST:PORT&region=REGION]'

/** Amazon's own first; other servers take any. */
const DEFAULT_REGION = 'us-east-1'

export type Place = { readonly directory: string } | S3Place

/** UsageError HOME_URL. */
export function parseHomeUrl(url: string): Place {
  const [, directory] = /^dir:(\/.*[^/])\/*$/.exec(url) ?? []
  if (directory !== undefined) return { directory }
  const [, bucket, path = '', query = ''] =
    /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/([A-Za-z0-9_./-]*))?(?:\?(.*))?$/.exec(url) ?? []
  if (bucket === undefined) throw wrong(url, `it must be ${FORMS}`)
  const prefix = path.replace(/\/+$/, '')
  if (prefix.split('/').some((part, at) => part.startsWith('.') || (part === '' && at > 0)))
    throw wrong(url, 'the prefix has empty parts, or parts that begin with a dot')
  const settings = new URLSearchParams(query)
  const unknown = [...settings.keys()].find(name => name !== 'endpoint' && name !== 'region')
  if (unknown !== undefined) throw wrong(url, `${unknown} is not known: it must be ${FORMS}`)
  const endpoint = settings.get('endpoint')?.replace(/\/+$/, '')
  if (endpoint !== undefined && !/^https?:\/\/[^/?#@\s]+$/.test(endpoint))
    throw wrong(url, 'its endpoint must be http:// or https:// and a host')
  const region = settings.get('region') ?? DEFAULT_REGION
  if (!/^[a-z0-9-]{1,40}$/.test(region)) throw wrong(url, 'its region is no name of one')
  return { bucket, prefix, region, ...(endpoint === undefined ? {} : { endpoint }) }
}

/** UsageError HOME_URL, HOME_CREDENTIALS. Nothing is asked of it yet. `limits`: for tests. */
export function openHome(url: string, credentials: S3Credentials | undefined, limits?: S3Limits): ObjectStore {
  const place = parseHomeUrl(url)
  if ('directory' in place) return openDirectory(place.directory)
  if (credentials !== undefined) return openS3(place, credentials, limits)
  throw new UsageError(
    'HOME_CREDENTIALS',
    `${url} needs credentials: a file with accessKeyId = "…" and secretAccessKey = "…" (home.credentialsFile, or --credentials-file), or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment of the peer`
  )
}

/**
 * As `openHome`, but where it lacks credentials each use of it says so: a peer that has just joined knows of its cluster's
 * second home, and is to run before somebody has given it any.
 */
export function openConfigured(url: string, credentials: S3Credentials | undefined): ObjectStore {
  try {
    return openHome(url, credentials)
  } catch (error) {
    if (!(error instanceof DiapauseError) || error.code !== 'HOME_CREDENTIALS') throw error
    const refuse = (): Promise<never> => Promise.reject(error)
    const list = async function* (): AsyncGenerator<never> {
      yield await refuse()
    }
    return { url, put: refuse, get: refuse, stat: refuse, delete: refuse, list }
  }
}

const wrong = (url: string, why: string): DiapauseError =>
  new UsageError('HOME_URL', `${JSON.stringify(url)} is no second home: ${why}`)
