/** The API over TCP: where, by which names, with which certificate. */
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { ApiSettings } from '../../config/api.ts'
import { listeningOf, originOf } from '../../config/listening.ts'
import { memberById } from '../../protocols/membership/record.ts'
import { serveTcp, type TcpServer } from '../edge/api-tcp.ts'
import { createStatic } from '../edge/static.ts'
import type { PeerView } from '../edge/view.ts'
import { hasCode, messageOf } from '../errors.ts'
import { readTls, type TlsPair, tlsVersion } from '../host/tls-files.ts'
import type { Home } from './home.ts'
import type { Run } from './run.ts'
import type { Voice } from './voice.ts'

/** A certificate that was renewed is used after this at the latest. A guess: renewals come weeks before the end. */
const TLS_LOOK_MS = 60_000

const dashboard = join(import.meta.dirname, '../../.build/dashboard')

/**
 * Its URL; undefined: it is not served so. UsageError API_PORT where the config names a port that is not to be had; the default one
 * may be another program's, and then there is the socket. UsageError API_TLS, API_TLS_EXPOSED.
 */
export async function openTcpApi(
  home: Home,
  { membership }: Voice,
  view: PeerView,
  run: Run
): Promise<string | undefined> {
  const { config, self } = home
  const { api, peer } = config
  const listening = listeningOf(api.listen, peer.listen)
  if (listening === undefined) return undefined
  const { host, port, named } = listening
  let tls = api.tls && (await readTls(api.tls))
  const fixed = new Set([hostname(), ...api.names].map(name => name.toLowerCase()))
  const isName = (name: string): boolean =>
    fixed.has(name) ||
    tls?.names(name) === true ||
    nameIn(memberById(membership.record(), self)?.address ?? '') === name
  const options = { view, log: home.log, host, port, tls, isName, files: createStatic(dashboard) }
  let server: TcpServer
  try {
    server = await serveTcp(options)
  } catch (error) {
    if (named || !hasCode(error, 'API_PORT')) throw error
    home.log.warn({ error: messageOf(error) }, 'the API is not served over TCP; its socket is')
    run.events.emit('api.off', { message: messageOf(error) })
    return undefined
  }
  run.teardown.add(() => server.close())
  if (api.tls !== undefined && tls !== undefined) {
    followCertificate(home, run, { paths: api.tls, first: tls, server }, renewed => (tls = renewed))
  }
  run.report('api.listening', { host, port, tls: tls !== undefined })
  return originOf({ host, port, tls: tls !== undefined })
}

interface Certificate {
  readonly paths: NonNullable<ApiSettings['tls']>
  readonly first: TlsPair
  readonly server: TcpServer
}

/** What cannot be used is said once for each change, and the certificate that there was stays. */
function followCertificate(
  { clock, log }: Home,
  { teardown, report }: Run,
  { paths, first, server }: Certificate,
  use: (tls: TlsPair) => void
): void {
  let { version } = first
  let stopped = false
  let cancel = (): void => {}
  const look = async (): Promise<void> => {
    try {
      const now = await tlsVersion(paths)
      if (now !== version) {
        version = now
        const tls = await readTls(paths)
        server.setTls(tls)
        use(tls)
        report('api.certificate', { validToMs: tls.validToMs })
      }
    } catch (error) {
      log.warn({ error: messageOf(error) }, 'the certificate of the API was not read again')
    }
    if (!stopped) cancel = clock.after(TLS_LOOK_MS, () => void look())
  }
  cancel = clock.after(TLS_LOOK_MS, () => void look())
  teardown.add(() => {
    stopped = true
    cancel()
  })
}

/** The name in an address that has one. */
const nameIn = (address: string): string | undefined => /^\/dns[46]?\/([^/]+)\//.exec(address)?.[1]?.toLowerCase()
