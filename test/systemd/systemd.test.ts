/**
 * The shipped unit under a real systemd: the package that root has installed, a cluster of one peer, a VM with a disk. First the
 * peer is root, then a user of its own, by the commands that `own-user.conf` tells people to type.
 * The tests are one story in order: look at the first that fails, the others follow from it.
 */
import { appendFile, cp, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { apiSocketPath } from '../../node/edge/api.ts'
import { ApiClient } from '../../node/edge/client.ts'
import { bootDiskVm, makeBootDisk, type PcReport, parsePc } from '../guest/disk.ts'
import { until } from '../scenarios/member.ts'
import { INSTALLED, installPackage } from './install.ts'
import { System } from './system.ts'

const units = join(import.meta.dirname, '../../config/systemd')
const SERVICE = 'diapause.service'
const GROUP = 'pcs'
const DATA = '/var/lib/diapause'

/** What the operator adds: the way of VMs to the outside, and an epoch when the test asks for one. */
const SETTINGS = `
[switch]
uplink = "tap:tap0"
[epochs]
intervalMs = 0
`

describe('the unit under systemd', () => {
  let system: System
  let client: ApiClient
  /** How far the VM had counted at least when it was cut last. */
  let atEpoch = 0
  /** Of the unit as it is. */
  let asRoot: number

  beforeAll(async () => {
    system = await System.boot()
    client = new ApiClient(apiSocketPath(join(system.dataDir, 'run')))
    await installPackage(system)
    await makeBootDisk(system.path('/srv/disk'))
    await cp(units, system.path('/root/systemd'), { recursive: true })
  }, 900_000)

  afterAll(async () => {
    await system?.end()
  })

  const property = async (name: string): Promise<string> =>
    (await system.run('systemctl', 'show', '--value', '--property', name, SERVICE)).trim()

  const journal = (): Promise<string> => system.run('journalctl', '--no-pager', '--output=cat', '--unit', SERVICE)

  /** By systemctl; where it fails, with what the peer has said. */
  async function ask(...verb: readonly string[]): Promise<void> {
    await system.run('systemctl', ...verb, SERVICE).catch(async (error: Error) => {
      throw new Error(`${error.message}\n${(await journal()).split('\n').slice(-20).join('\n')}`, { cause: error })
    })
  }

  async function printed(): Promise<PcReport[]> {
    const folder = join(system.dataDir, 'run/console')
    const names = await readdir(folder).catch(() => [])
    const texts = await Promise.all(names.map(name => readFile(join(folder, name), 'latin1')))
    return parsePc(texts.join(''))
  }

  const running = async (): Promise<boolean> =>
    (await client.status().catch(() => undefined))?.groups.some(({ running }) => running.includes('pc')) === true

  /** It counts from where it was in its last epoch, in RAM and on its disk, and never boots anew. */
  async function goesOn(generation: number): Promise<void> {
    await until(`the VM to run in generation ${generation}`, async () => {
      const [record] = await client.groups().catch(() => [])
      return record?.generation === generation && (await running())
    })
    const already = (await printed()).length
    await until('it to count', async () => (await printed()).length > already + 2)
    const reports = await printed()
    for (const { boots, ram, disk } of reports) expect({ boots, disk }).toEqual({ boots: 1, disk: ram })
    expect(reports.at(-1)?.ram).toBeGreaterThan(atEpoch)
  }

  /** Whoever serves the TAP device has it open. */
  const uplinked = () =>
    until('the uplink', async () => (await system.run('ip', 'link', 'show', 'dev', 'tap0')).includes('LOWER_UP'))

  /** What a peer that has stopped should have ended and removed. */
  async function remains(): Promise<string[]> {
    const processes = (await system.run('ps', '-eo', 'args='))
      .split('\n')
      .filter(line => /qemu|tracker|diapause/.test(line))
    return [...processes, ...(await readdir(system.path('/dev/shm')))]
  }

  /** What systemd-analyze thinks of it, from 0 to 10. */
  async function exposure(): Promise<number> {
    const text = await system.run('systemd-analyze', 'security', '--no-pager', SERVICE)
    return Number(/exposure level for \S+: ([\d.]+)/.exec(text)?.[1])
  }

  /** What openFlow sets of its TAP devices. */
  async function keepsTapApart(...as: readonly string[]): Promise<void> {
    const set =
      'for of in ipv4/conf/tap0/rp_filter ipv6/conf/tap0/disable_ipv6; do [ ! -d /proc/sys/net/${of%%/*} ] || echo 1 > /proc/sys/net/$of; done'
    await system.run('nsenter', '--target', await property('MainPID'), '--mount', ...as, 'sh', '-ec', set)
  }

  /** Takes an epoch; how the VM was cut for it. */
  async function cut(): Promise<string | undefined> {
    const counted = (await printed()).at(-1)?.ram ?? 0
    await until('an epoch', async () => (await client.takeEpoch(GROUP).catch(() => undefined))?.outcome === 'committed')
    atEpoch = counted
    const [group] = (await client.status()).groups
    return group?.captures['pc']?.mode
  }

  it('is taken without a complaint', async () => {
    const address = ['--advertise', '/ip4/127.0.0.1/tcp/7400']
    await system.run('diapause', 'init', '--cluster', 'forest', '--name', 'oak', '--data-dir', DATA, ...address)
    await appendFile(join(system.dataDir, 'peer.toml'), SETTINGS)
    await system.run('ip', 'tuntap', 'add', 'dev', 'tap0', 'mode', 'tap')
    await system.run('ip', 'link', 'set', 'tap0', 'up')
    await system.run('cp', '/root/systemd/diapause.service', '/etc/systemd/system')
    await system.run('systemctl', 'daemon-reload')
    expect(await system.run('systemd-analyze', 'verify', '--man=no', SERVICE)).toBe('')
  })

  it('is active once its peer serves, says how to ask it, and its peer cuts VMs by what they write', async () => {
    await ask('enable', '--now')
    expect([await property('ActiveState'), await property('MainPID')]).toEqual([
      'active',
      `${(await client.status()).pid}`
    ])
    expect((await client.status()).capture).toEqual({ mode: 'dirty' })
    const said = 'oak serves; how it is: diapause status --socket /var/lib/diapause/run/api.sock'
    expect(await property('StatusText')).toBe(said)
    expect(await system.run('sh', '-c', said.slice(said.indexOf('diapause')))).toContain('capture dirty')
    asRoot = await exposure()
  })

  it('lets VMs run, with their disks and their way to the outside, and be cut', async () => {
    await client.createGroup({ id: GROUP, vms: [bootDiskVm('/srv/disk')], owners: { pc: 'oak' } })
    await goesOn(1)
    await uplinked()
    await keepsTapApart()
    expect(await cut()).toBe('dirty')
  })

  it('restarts, and its VM goes on from the epoch', async () => {
    await ask('restart')
    await goesOn(2)
    await uplinked()
    expect(await cut()).toBe('dirty')
  })

  it('ends a peer that says nothing any more, and starts another', async () => {
    const stopped = await property('MainPID')
    await system.run('kill', '-STOP', stopped)
    await until(
      'another peer',
      async () => (await property('NRestarts')) === '1' && (await property('ActiveState')) === 'active'
    )
    expect(await property('MainPID')).not.toBe(stopped)
    expect(await journal()).toContain('Watchdog timeout')
    await goesOn(3)
    expect(await cut()).toBe('dirty')
  })

  it('stops in order, in time, and leaves nothing that runs', async () => {
    await ask('stop')
    expect([await property('ActiveState'), await property('Result')]).toEqual(['inactive', 'success'])
    expect(await remains()).toEqual([])
  })

  it('runs it as a user of its own after the commands of own-user.conf, by helpers that the user builds', async () => {
    const text = await readFile(join(units, 'own-user.conf'), 'utf8')
    const commands = [...text.matchAll(/^# {3}(\S.*)$/gm)].map(([, command]) => command)
    expect(commands.at(-1)).toContain('systemctl restart diapause')
    const [userAdd = '', ...rest] = commands
    await system.run('sh', '-c', userAdd)
    await system.run('ip', 'tuntap', 'del', 'dev', 'tap0', 'mode', 'tap')
    await system.run('ip', 'tuntap', 'add', 'dev', 'tap0', 'mode', 'tap', 'user', 'diapause')
    await system.run('ip', 'link', 'set', 'tap0', 'up')
    // As where root has installed the package and never run a peer.
    await rm(system.path(`${INSTALLED}/dist/.build/native`), { recursive: true })
    await system.run('sh', '-ec', ['cd /root/systemd', ...rest].join('\n'))
    expect(await system.run('systemd-analyze', 'verify', '--man=no', SERVICE)).toBe('')
    const user = await system.run('ps', '-o', 'user=', '-p', await property('MainPID'))
    expect(user.trim()).toBe('diapause')
    expect(await readdir(join(system.dataDir, 'native'))).toHaveLength(1)
    expect(await readdir(system.path('/var/cache/diapause'))).not.toEqual([])
    expect((await client.status()).capture).toEqual({ mode: 'dirty' })
  })

  it('gives that user all that its VM needs to go on, with its way to the outside, and to be cut', async () => {
    await goesOn(4)
    await uplinked()
    const capabilities = ['--inh-caps=+net_admin', '--ambient-caps=+net_admin']
    await keepsTapApart('setpriv', '--reuid', 'diapause', '--regid', 'diapause', '--clear-groups', ...capabilities)
    expect(await cut()).toBe('dirty')
  })

  it('restarts as that user, and ends a peer that says nothing', async () => {
    await ask('restart')
    await goesOn(5)
    expect(await cut()).toBe('dirty')
    const stopped = await property('MainPID')
    await system.run('kill', '-STOP', stopped)
    await until('another peer', async () => {
      const [main, state] = [await property('MainPID'), await property('ActiveState')]
      return main !== stopped && state === 'active'
    })
    await goesOn(6)
    expect(await cut()).toBe('dirty')
  })

  it('stops as that user in order, too', async () => {
    await ask('stop')
    expect([await property('ActiveState'), await property('Result')]).toEqual(['inactive', 'success'])
    expect(await remains()).toEqual([])
  })

  it('exposes no more than its documentation says', async () => {
    const readme = await readFile(join(units, '../README.md'), 'utf8')
    const [said, saidAsUser] = [...readme.matchAll(/exposure (\d\.\d)/g)].map(([, level]) => Number(level))
    expect(asRoot).toBeLessThanOrEqual(said ?? 0)
    expect(await exposure()).toBeLessThanOrEqual(saidAsUser ?? 0)
  })

  it('told systemd every time, and nothing went wrong beside', async () => {
    const text = await journal()
    expect(text).not.toContain('systemd cannot be told')
    expect(text.split('\n').filter(line => line.includes('"level":"error"'))).toEqual([])
  })
})
