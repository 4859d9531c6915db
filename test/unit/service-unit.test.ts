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

test('the unit lets a peer, and so its QEMUs, write its own folders, what it compiles, and settings of networks, and no other file', async () => {
  const settings = await readSettings()
  expect(settings.get('ProtectSystem')).toBe('strict')
  expect(settings.get('ProtectHome')).toBe('read-only')
  for (const each of ['PrivateTmp', 'ProtectKernelTunables', 'ProtectControlGroups']) {
    expect(settings.get(each), each).toBe('yes')
  }
  expect(settings.get('DevicePolicy')).toBe('closed')
  expect(await allOf('ReadWritePaths')).toEqual([
    '-/usr/lib/node_modules/diapause/dist/.build',
    '-/usr/local/lib/node_modules/diapause/dist/.build',
    '-/proc/sys/net/ipv4/conf',
    '-/proc/sys/net/ipv6/conf'
  ])
  for (const each of ['StateDirectory', 'RuntimeDirectory']) expect(await allOf(each), each).toEqual(['diapause'])
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

/** Of a setting that stands there more than once, all words. */
async function allOf(setting: string): Promise<string[]> {
  const text = await readFile(join(import.meta.dirname, '../../config/systemd/diapause.service'), 'utf8')
  return text.split('\n').flatMap(line => (line.startsWith(`${setting}=`) ? split(line)[1].split(' ') : []))
}

function split(line: string): [string, string] {
  const at = line.indexOf('=')
  return [line.slice(0, at), line.slice(at + 1)]
}
