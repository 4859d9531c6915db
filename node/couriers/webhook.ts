/**
 * Tells by a POST of JSON. Any 2xx is taken as told. A redirect is not followed: it would take the token to who knows whom.
 * Secrets are read from their files each time, so that they can be changed without a restart, and stand in no error.
 */
import { createHmac } from 'node:crypto'
import type { NotificationTarget } from '../../config/notices.ts'
import { messageOf } from '../errors.ts'
import type { NotificationBody } from '../ports.ts'
import { failed, refused } from './errors.ts'
import { readSecret } from './secret.ts'

/** Answers of others than 2xx that may be another the next time: too early, too many, and what a proxy says. */
const AGAIN = [408, 425, 429]

export async function postWebhook(
  target: NotificationTarget,
  message: NotificationBody,
  signal: AbortSignal
): Promise<void> {
  const { name } = target
  const body = bodyOf(message)
  const url = await urlOf(target)
  const headers = { 'content-type': 'application/json', 'user-agent': 'diapause', ...(await credentials(target, body)) }
  let response: Response
  try {
    response = await fetch(url, { method: 'POST', headers, body, redirect: 'manual', signal })
  } catch (error) {
    if (signal.aborted) throw failed(name, `${url.host} did not answer in time`)
    throw failed(name, `${url.host} cannot be reached: ${reasonOf(error)}`)
  }
  await response.body?.cancel().catch(() => {})
  const { status } = response
  if (status >= 200 && status < 300) return
  const why = `${url.host} answered with status ${status}`
  if (status >= 500 || AGAIN.includes(status)) {
    const seconds = Number(response.headers.get('retry-after') ?? Number.NaN)
    throw failed(name, why, seconds > 0 ? { retryAfterMs: seconds * 1_000 } : {})
  }
  throw refused(name, status >= 300 && status < 400 ? `${why}: name the URL to which it leads` : why)
}

/** Documented in README.md: others read it. */
function bodyOf({ notices, ...rest }: NotificationBody): string {
  const told = notices.map(({ atMs, ...notice }) => ({ ...notice, at: new Date(atMs).toISOString() }))
  return JSON.stringify({ ...rest, notices: told })
}

async function urlOf({ name, webhook, webhookFile }: NotificationTarget): Promise<URL> {
  const text = webhook ?? (await secretIn(name, webhookFile ?? ''))
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url?.protocol === 'http:' || url?.protocol === 'https:') return url
  throw refused(name, 'its webhook is no http or https URL')
}

async function credentials({ name, tokenFile, signingKeyFile }: NotificationTarget, body: string) {
  const token = tokenFile && (await secretIn(name, tokenFile))
  const key = signingKeyFile && (await secretIn(name, signingKeyFile))
  return {
    ...(token && { authorization: `Bearer ${token}` }),
    ...(key && { 'diapause-signature': `sha256=${createHmac('sha256', key).update(body).digest('hex')}` })
  }
}

async function secretIn(name: string, file: string): Promise<string> {
  try {
    return await readSecret(file)
  } catch (error) {
    throw refused(name, messageOf(error))
  }
}

/** The system's code; fetch's own message says nothing, and its cause's may have the URL in it. */
function reasonOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined
  const code = typeof cause === 'object' && cause !== null && 'code' in cause ? cause.code : undefined
  return typeof code === 'string' ? code : 'no connection'
}
