/**
 * What this host's kernel still holds of what was written to a connection, because the other side has not acknowledged it.
 * It sends that again and again, and would for minutes: whoever may speak no longer has to take it back by resetting the
 * connection. Node cannot ask a socket for it (SIOCOUTQ), so it is read from proc(5), `net/tcp` and `net/tcp6`, of this
 * host's network namespace.
 */
import { readFileSync } from 'node:fs'

/** The other sides, as `ADDRESS:PORT` (IPv6 as in a URL), of connections with such bytes. */
export function unacknowledged(directory = '/proc/self/net'): Set<string> {
  return new Set(['tcp', 'tcp6'].flatMap(name => remotesIn(readTable(`${directory}/${name}`))))
}

/** Without IPv6 there is no table of it. */
function readTable(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}

function remotesIn(table: string): string[] {
  return table.split('\n').flatMap(line => {
    const [, , remote = '', , queues = ''] = line.trim().split(/\s+/)
    const match = /^([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4})$/.exec(remote)
    const [, words = '', port = ''] = match ?? []
    const isWaiting = Number.parseInt(queues.split(':')[0] ?? '', 16) > 0
    return match === null || !isWaiting ? [] : [`${addressOf(words)}:${Number.parseInt(port, 16)}`]
  })
}

/** Words of four bytes, each in the order of this machine, which is little-endian. */
function addressOf(words: string): string {
  const bytes = Buffer.concat((words.match(/.{8}/g) ?? []).map(word => Buffer.from(word, 'hex').reverse()))
  if (bytes.length === 4) return bytes.join('.')
  return new URL(`http://[${bytes.toString('hex').replace(/.{4}(?=.)/g, '$&:')}]`).hostname
}
