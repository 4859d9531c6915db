import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { MAX_RUN_DIR_BYTES } from '../../config/limits.ts'
import { parseConfig } from '../../config/parse.ts'
import type { Config } from '../../config/schema.ts'
import { nearest, problemText } from '../../config/words.ts'
import { configFromToml, loadConfig } from '../../node/host/config-file.ts'

const ids = [
  '12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5',
  '12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq',
  '12D3KooWRndVhVZPCiQwHBBBdg769GyrPUW13zxwqQyf9r3ANaba'
]
const head = '[cluster]\nname = "c"\nsecretFile = "/secret"\n[peer]\nname = "p0"\ndataDir = "/data"\n'
const members = (roles: readonly string[]): string =>
  roles
    .map((role, at) => {
      const address = `/ip4/10.0.0.${at}/tcp/7400`
      return `[[members]]\nname = "p${at}"\nid = "${ids[at]}"\naddress = "${address}"\nrole = "${role}"\n`
    })
    .join('')
const three = head + members(['storage', 'storage', 'storage'])

function configOf(text: string): Config {
  const parsed = parseConfig(text)
  if (!parsed.ok) throw new Error(parsed.problems.map(problemText).join('\n'))
  return parsed.config
}

function problemsOf(text: string): string[] {
  const parsed = parseConfig(text)
  return parsed.ok ? [] : parsed.problems.map(problemText)
}

describe('a config file', () => {
  it('gives a frozen config with defaults for what it leaves out', () => {
    const config = configOf(`${three}[lease]\ndurationMs = 900\n`)
    expect(config.lease).toEqual({ durationMs: 900, renewEveryMs: 200, driftPerMille: 20 })
    expect(config.members.map(member => member.role)).toEqual(['storage', 'storage', 'storage'])
    expect(Object.isFrozen(config)).toBe(true)
    expect(Object.isFrozen(config.members[0])).toBe(true)
  })

  it('is refused with all its errors at once, each naming key, expectation and finding', () => {
    const text = `${three.replace('"c"', '"C!"')}[lease]\ndurationMs = "1s"\n[epochs]\nintervalMs = 1.5\n[log]\nlevel = "loud"\n[detector]\nsuspicionMinMs = 9_000\n`
    expect(problemsOf(text)).toEqual([
      'cluster.name: expected 1 to 40 of the characters a-z, 0-9 and -, found "C!"',
      'lease.durationMs: expected a whole number from 100 to 600000, found "1s"',
      'epochs.intervalMs: expected a whole number from 0 to 86400000, found 1.5',
      'log.level: expected one of "debug", "info", "warn", "error", found "loud"',
      'detector.suspicionMinMs: expected at most detector.suspicionMaxMs (1200), found 9000'
    ])
  })

  it('says where its host stands, in names, or nothing', () => {
    const labelled = (labels: string): string => three.replace('[peer]\n', `[peer]\nlabels = ${labels}\n`)
    expect(configOf(three).peer.labels).toEqual({})
    expect(configOf(labelled('{ rack = "r1", site = "north" }')).peer.labels).toEqual({ rack: 'r1', site: 'north' })
    expect(problemsOf(labelled('{ rack = "R 1", row = "7" }'))).toEqual([
      'peer.labels.rack: expected 1 to 40 of the characters a-z, 0-9 and -, found "R 1"',
      'peer.labels.row: expected one of host, rack, site, found an unknown key'
    ])
  })

  it('has one port of a bridge for all members, or one for each', () => {
    const withBridge = (towards: string): string => `${three}[switch.openFlow]\nbridge = "br0"\ntowards = ${towards}\n`
    expect(configOf(three).switch.openFlow).toBeUndefined()
    expect(configOf(withBridge('"eth1"')).switch.openFlow).toEqual({
      bridge: 'br0',
      towards: 'eth1',
      database: 'unix:/var/run/openvswitch/db.sock'
    })
    expect(configOf(withBridge('{ p1 = "t1", p2 = "t2" }')).switch.openFlow?.towards).toEqual({ p1: 't1', p2: 't2' })
    expect(problemsOf(withBridge('7'))).toEqual([
      'switch.openFlow.towards: expected the name of a port of the bridge, or a table of them by the names of members, found 7'
    ])
    const withDatabase = (database: string): string => `${withBridge('"eth1"')}database = "${database}"\n`
    expect(configOf(withDatabase('tcp:127.0.0.1:6640')).switch.openFlow?.database).toBe('tcp:127.0.0.1:6640')
    expect(problemsOf(withDatabase('/run/db.sock'))).toEqual([
      'switch.openFlow.database: expected "unix:" and the path of a socket, or "tcp:" and a host and a port, found "/run/db.sock"'
    ])
  })

  it('names the nearest known key for an unknown one', () => {
    expect(problemsOf(`${three}[lease]\ndurationMS = 1000\n`)).toEqual([
      'lease.durationMS: expected a known key; did you mean durationMs?, found an unknown key'
    ])
    expect(nearest('leese', ['lease', 'log'])).toBe('lease')
    expect(nearest('quorum', ['lease', 'log'])).toBeUndefined()
  })

  it('says what is missing', () => {
    expect(problemsOf('')).toEqual([
      'cluster: expected a table ([cluster]), found nothing',
      'peer: expected a table ([peer]), found nothing'
    ])
  })

  it('needs no members: whoever was made by init or join finds them in the data folder', () => {
    expect(configOf(head)).toMatchObject({ members: [], peer: { mdns: true } })
    expect(problemsOf(`${head}mdns = "off"\nlisten = "7400"\n`)).toEqual([
      'peer.listen: expected an address such as "/ip4/10.0.0.1/tcp/7400" or "/dns4/host.example/tcp/7400", found "7400"',
      'peer.mdns: expected true or false, found "off"'
    ])
    expect(problemsOf(`members = "all"\n${head}`)).toEqual([
      'members: expected 0 to 100 entries ([[members]]), found "all"'
    ])
  })

  it('that is not TOML is refused with line and column', () => {
    expect(problemsOf('[cluster\nname = 1')).toEqual([
      'line 1, column 9: expected TOML, found illegal character in key'
    ])
  })

  it('never makes the parser throw, whatever its bytes are', () => {
    const line = fc.constantFrom(
      ...three.split('\n'),
      '[lease]',
      'durationMs = 1',
      'members = 3',
      '__proto__ = 1',
      '= x'
    )
    const text = fc.oneof(
      fc.string(),
      fc.array(line, { maxLength: 30 }).map(lines => lines.join('\n'))
    )
    fc.assert(
      fc.property(text, input => {
        const parsed = parseConfig(input)
        return parsed.ok || parsed.problems.length > 0
      })
    )
  })
})

describe('settings that depend on each other', () => {
  it('need three renewals in a lease', () => {
    expect(problemsOf(`${three}[lease]\ndurationMs = 600\nrenewEveryMs = 200\n`)).toEqual([])
    expect(problemsOf(`${three}[lease]\ndurationMs = 599\nrenewEveryMs = 200\n`)).toHaveLength(1)
  })

  it('need a probe shorter than the period and a round shorter than giving up', () => {
    expect(problemsOf(`${three}[detector]\nperiodMs = 100\n[register]\nroundTimeoutMs = 6_000\n`)).toEqual([
      'detector.probeTimeoutMs: expected less than detector.periodMs (100), so that indirect probes have time, found 100',
      'register.roundTimeoutMs: expected at most register.giveUpMs (5000), found 6000'
    ])
  })

  it('need a storage member, different members, and this peer among them', () => {
    expect(problemsOf(head + members(['witness']))).toEqual([
      'members: expected at least one with role "storage", found only witnesses'
    ])
    expect(problemsOf(`${head.replace('p0', 'stranger')}${members(['storage', 'storage', 'storage'])}`)).toEqual([
      'peer.name: expected the name of a member ("p0", "p1", "p2"), because this peer is one of them, found "stranger"'
    ])
    expect(problemsOf(three.replace('name = "p2"', 'name = "p1"').replace('10.0.0.2', '10.0.0.1'))).toEqual([
      'members[2].name: expected another name than that of members[1], found "p1"',
      'members[2].address: expected another address than that of members[1], found "/ip4/10.0.0.1/tcp/7400"'
    ])
  })

  it('let any one storage member be lost, however few there are', () => {
    const two = head + members(['storage', 'storage', 'witness'])
    expect(problemsOf(two)).toEqual([
      'shards.k: expected at most 2 with shards.m = 2 and 2 storage members: else one of them holds 3 of 5 columns, and losing it loses data, found 3'
    ])
    expect(problemsOf(`${two}[shards]\nk = 2\n`)).toEqual([])
    expect(problemsOf(`${two}[shards]\nk = 6\nm = 6\nsymbolBytes = 1_048_576\n`)).toEqual([
      'shards.symbolBytes: expected at most 698704 with k + m = 12: a column of k + m symbols travels in one message of 8 MiB, found 1048576'
    ])
    expect(problemsOf(head + members(['storage']))).toEqual([])
  })

  it('leave room for the paths of sockets', () => {
    const runDir = (bytes: number) => `${three.replace('dataDir', `runDir = "/${'r'.repeat(bytes - 1)}"\ndataDir`)}`
    expect(problemsOf(runDir(MAX_RUN_DIR_BYTES))).toEqual([])
    expect(problemsOf(runDir(MAX_RUN_DIR_BYTES + 1))[0]).toMatch(/^peer.runDir: expected a path of at most 70 bytes/)
    expect(problemsOf(three.replace('/data', `/${'d'.repeat(80)}`))[0]).toMatch(/the default\)$/)
  })
})

describe('loading a config', () => {
  const examples = join(import.meta.dirname, '../../config/examples')

  const files = readdirSync(examples).filter(file => file.endsWith('.toml'))
  it.each(files)('takes the example %s as it stands', file => {
    expect(loadConfig(join(examples, file)).members).toHaveLength(3)
  })

  it('reads relative paths from the folder of the file', () => {
    const text = three.replace('"/data"', '"./data"').replace('"/secret"', '"../secret"')
    const config = configFromToml(text, '/etc/diapause/peer.toml')
    expect(config.peer.dataDir).toBe('/etc/diapause/data')
    expect(config.cluster.secretFile).toBe('/etc/secret')
  })

  it('fails with a usage error that lists the problems', () => {
    expect(() => loadConfig('/nowhere/peer.toml')).toThrow(expect.objectContaining({ code: 'CONFIG_UNREADABLE' }))
    expect(() => configFromToml('', 'x.toml')).toThrow(
      expect.objectContaining({
        name: 'UsageError',
        code: 'CONFIG_INVALID',
        message: expect.stringMatching(/^x.toml has 2 errors:\n {2}cluster: /)
      })
    )
  })
})
