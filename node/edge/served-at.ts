/** Where a peer says that it serves its API over TCP. */
import type { ApiClient } from './client.ts'

export interface ServedAt {
  readonly host: string
  readonly port: number
  readonly tls: boolean
}

/** As it last told in its events. Null: it could not serve it. Undefined: that is too long ago, or it was not to. */
export async function servedAt(client: Pick<ApiClient, 'events'>): Promise<ServedAt | null | undefined> {
  let told: ServedAt | null | undefined
  for await (const { kind, host, port, tls } of client.events()) {
    if (kind === 'api.off') told = null
    else if (kind === 'api.listening' && typeof host === 'string' && typeof port === 'number') {
      told = { host, port, tls: tls === true }
    }
  }
  return told
}
