/** What the shipped systemd unit must say for a peer to be heard, and to come back. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'

test('the unit leaves no core dumps, and a peer what it takes to confine its VMs', async () => {
  const settings = await readSettings()
  expect(settings.get('LimitCORE')).toBe('1')
  expect(settings.get('CapabilityBoundingSet')?.split(' ')).toContain('CAP_SETPCAP')
  expect(settings.get('NoNewPrivileges')).toBe('yes')
  expect(settings.get('UMask')).toBe('0077')
})

test('a peer as a user of its own has what a peer as root has of privileges, or less', async () => {
  const [unit, own] = [await readSettings(), await readSettings('own-user.conf')]
  const ambient = own.get('AmbientCapabilities')?.split(' ') ?? []
  expect(own.get('User')).toBe('diapause')
  expect(ambient).toContain('CAP_NET_ADMIN')
  expect(ambient).not.toContain('CAP_SYS_PTRACE')
  expect(own.get('CapabilityBoundingSet')?.split(' ')).toEqual(ambient)
  expect(unit.get('CapabilityBoundingSet')?.split(' ')).toEqual(expect.arrayContaining(ambient))
})

test('the unit hears the processes that speak for a peer, and starts it again after every failure', async () => {
  const settings = await readSettings()
  // systemd-notify is not the main process.
  expect(settings.get('NotifyAccess')).toBe('all')
  expect(settings.get('Restart')).toBe('on-failure')
  // An address that is not there yet ends a peer with 2: it may come.
  expect(settings.has('RestartPreventExitStatus')).toBe(false)
  expect(settings.get('StartLimitIntervalSec')).toBe('0')
})

async function readSettings(name = 'diapause.service'): Promise<Map<string, string>> {
  const text = await readFile(join(import.meta.dirname, '../../config/systemd', name), 'utf8')
  return new Map(text.split('\n').flatMap(line => (/^\w+=/.test(line) ? [split(line)] : [])))
}

function split(line: string): [string, string] {
  const at = line.indexOf('=')
  return [line.slice(0, at), line.slice(at + 1)]
}
