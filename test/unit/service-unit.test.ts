/** What the shipped systemd unit must say for a peer to be heard, and to come back. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'

test('the unit hears the processes that speak for a peer, and starts it again after every failure', async () => {
  const text = await readFile(join(import.meta.dirname, '../../config/systemd/diapause.service'), 'utf8')
  const settings = new Map(text.split('\n').flatMap(line => (/^\w+=/.test(line) ? [split(line)] : [])))
  // systemd-notify is not the main process.
  expect(settings.get('NotifyAccess')).toBe('all')
  expect(settings.get('Restart')).toBe('on-failure')
  // An address that is not there yet ends a peer with 2: it may come.
  expect(settings.has('RestartPreventExitStatus')).toBe(false)
  expect(settings.get('StartLimitIntervalSec')).toBe('0')
})

function split(line: string): [string, string] {
  const at = line.indexOf('=')
  return [line.slice(0, at), line.slice(at + 1)]
}
