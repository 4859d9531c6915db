/** Hosts in network namespaces: who reaches whom, before, during and after a cut, and what stays when their maker dies. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { processes, waitUntil } from '../demo/processes.ts'
import { type Host, Hosts } from '../hosts/hosts.ts'
import { Wire } from '../hosts/wire.ts'

const PORT = 7400

/** Says something to each of the others every 20 ms and prints from whom it hears. */
const chatter = (others: readonly Host[]) => `
  const socket = require('dgram').createSocket('udp4')
  socket.on('message', (_, from) => console.log(from.address)).on('error', () => {})
  socket.bind(${PORT}, () => console.log('up'))
  const others = ${JSON.stringify(others.map(({ address }) => address))}
  setInterval(() => { for (const other of others) socket.send('x', ${PORT}, other) }, 20)`

/** Prints how many bytes it has got on a connection so far. */
const listener = `
  let got = 0
  require('net').createServer(s => s.on('data', part => console.log(got += part.length))).listen(${PORT}, () => console.log('up'))`
const speaker = (to: Host, times: number) => `
  const socket = require('net').connect(${PORT}, '${to.address}')
  let left = ${times}
  setInterval(() => { if (left-- > 0) socket.write('x'.repeat(100)) }, 5)`

describe('hosts in network namespaces', () => {
  let hosts: Hosts
  let one: Host
  let two: Host
  let three: Host
  /** Host that hears → address of the host that speaks → how often so far. */
  const heard = new Map<Host, Map<string, number>>()

  beforeAll(async () => {
    hosts = await Hosts.make(3)
    ;[one, two, three] = hosts.all as [Host, Host, Host]
    for (const host of hosts.all) {
      const counts = new Map<string, number>()
      heard.set(host, counts)
      const others = hosts.all.filter(other => other !== host)
      start(host, chatter(others), line => counts.set(line, (counts.get(line) ?? 0) + 1))
    }
  })

  afterAll(async () => {
    await hosts?.remove()
  })

  function start(host: Host, script: string, onLine: (line: string) => void = () => {}): ChildProcess {
    const [command, ...args] = [...hosts.on(host), process.execPath, '-e', script]
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    createInterface({ input: child.stdout }).on('line', onLine)
    return child
  }

  const count = (from: Host, to: Host): number => heard.get(to)?.get(from.address) ?? 0

  const reaches = (from: Host, to: Host): Promise<boolean> => {
    const before = count(from, to)
    return waitUntil(() => count(from, to) >= before + 5, 30_000)
  }

  /** Nothing comes while 25 are said. */
  const isCut = async (from: Host, to: Host): Promise<boolean> => {
    await sleep(200) // what was under way
    const before = count(from, to)
    await sleep(500)
    return count(from, to) === before
  }

  it('gives each an address of its own, at which the others reach it', async () => {
    const pairs = hosts.all.flatMap(from => hosts.all.filter(to => to !== from).map(to => reaches(from, to)))
    expect(await Promise.all(pairs)).toEqual(pairs.map(() => true))
  })

  it('cuts a host off from all others, who reach each other, and heals', async () => {
    await hosts.cutOff(one)
    expect(await Promise.all([isCut(one, two), isCut(two, one), isCut(three, one)])).toEqual([true, true, true])
    expect(await Promise.all([reaches(two, three), reaches(three, two)])).toEqual([true, true])
    await hosts.heal()
    expect(await Promise.all([reaches(one, two), reaches(two, one)])).toEqual([true, true])
  })

  it('loses what goes one way and not what goes the other', async () => {
    await hosts.block(one, two)
    expect(await isCut(one, two)).toBe(true)
    expect(await Promise.all([reaches(two, one), reaches(one, three)])).toEqual([true, true])
    await hosts.heal()
    expect(await reaches(one, two)).toBe(true)
  })

  it('sees at the switch what a host sends, also what is not forwarded, and counts once what TCP sends again', async () => {
    const wire = await Wire.watch(hosts, PORT)
    let got = 0
    const up = Promise.withResolvers<void>()
    start(three, listener, line => {
      if (line === 'up') up.resolve()
      else got = Number(line)
    })
    await up.promise
    const sent = () => wire.log.connections(two.address, three.address).at(-1)?.sent ?? []
    const bytes = () => sent().reduce((sum, each) => sum + each.bytes, 0)
    start(two, speaker(three, 400))
    expect(await waitUntil(() => got > 2_000, 30_000)).toBe(true)
    await hosts.cutOff(two)
    const cutMs = Number(process.hrtime.bigint()) / 1e6
    // The kernel sends on what fits into the window, and again what nobody acknowledges.
    expect(await waitUntil(() => bytes() > got + 2_000, 30_000)).toBe(true)
    await hosts.heal()
    expect(await waitUntil(() => got === 40_000, 60_000)).toBe(true)
    expect(bytes()).toBe(40_000)
    expect(sent().some(({ atMs }) => atMs > cutMs)).toBe(true)
    expect(await wire.stop()).toBe(0)
  })

  it('ends what runs on them when they are removed, and leaves nothing', async () => {
    const server = start(one, chatter([two]))
    const ended = once(server, 'exit')
    expect(await hosts.remove()).toEqual([])
    await ended
    expect(server.signalCode).toBe('SIGKILL')
    expect(existsSync(hosts.dir)).toBe(false)
  })
})

describe('hosts whose maker was killed', () => {
  // Whoever makes hosts beside us would remove the folder, too.
  let own: string
  beforeAll(async () => {
    own = await mkdtemp(join(tmpdir(), 'hosts-'))
    vi.stubEnv('TMPDIR', own)
  })
  afterAll(async () => {
    vi.unstubAllEnvs()
    await rm(own, { recursive: true })
  })

  it('are gone with it, and their folder with the next that are made', async () => {
    const maker = `
      const { Hosts } = await import(${JSON.stringify(join(import.meta.dirname, '../hosts/hosts.ts'))})
      const hosts = await Hosts.make(2)
      console.log(JSON.stringify({ dir: hosts.dir, on: hosts.on(hosts.all[0]) }))
      setInterval(() => {}, 1000)`
    const child = spawn(process.execPath, ['--input-type=module', '-e', maker], {
      stdio: ['ignore', 'pipe', 'inherit']
    })
    const [line] = (await once(child.stdout, 'data')) as [Buffer]
    const { dir, on } = JSON.parse(line.toString()) as { dir: string; on: string[] }
    await mkdir(join(dir, 'p1'))
    await writeFile(join(dir, 'p1/data'), 'something')
    const namespace = on.at(-1)?.replace('--net=', '') ?? ''
    expect(existsSync(namespace)).toBe(true)
    child.kill('SIGKILL')
    expect(await waitUntil(() => !existsSync(namespace), 30_000)).toBe(true)
    expect(processes().filter(({ parent }) => parent === child.pid)).toEqual([])
    expect(existsSync(dir)).toBe(true)
    const next = await Hosts.make(1)
    expect(existsSync(dir)).toBe(false)
    expect(existsSync(next.dir)).toBe(true)
    await next.remove()
  })
})

describe('hosts with folders of their own', () => {
  const [own, shared] = ['/var/lib/diapause-of-a-host', '/mnt/diapause-of-all']
  let hosts: Hosts
  beforeAll(async () => {
    hosts = await Hosts.make(2, { own: [own, '/srv'], shared: [shared] })
  })
  afterAll(async () => {
    await hosts?.remove()
  })

  const said = (host: Host | undefined, script: string): string => {
    const [command, ...args] = [...hosts.on(host as Host), 'sh', '-ec', script]
    const { stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' })
    return `${stdout}${stderr}`
  }

  it('see them where they are to be, and beside them what the machine has', () => {
    const [one, two] = hosts.all
    expect(said(one, `echo one > ${own}/file; echo all > ${shared}/file; echo srv > /srv/file`)).toBe('')
    expect(said(two, `ls ${own} /srv | grep file || cat ${shared}/file`)).toBe('all\n')
    expect(said(one, `cat ${own}/file /srv/file; pwd`)).toBe(`one\nsrv\n${process.cwd()}\n`)
    const beside = said(one, 'ls -A /var/lib')
      .split('\n')
      .filter(name => !own.endsWith(name))
    expect(beside.sort()).toEqual(readdirSync('/var/lib').sort())
    expect(said(one, "dpkg-query -W -f '${Package}' bash")).toBe('bash')
  })

  it('leave nothing of them on the machine', async () => {
    expect([existsSync(own), existsSync(shared), existsSync('/srv/file')]).toEqual([false, false, false])
    const { dir } = hosts
    expect(await hosts.remove()).toEqual([])
    expect(existsSync(dir)).toBe(false)
  })
})

describe('hosts on a machine that cannot have them', () => {
  it('names the Debian package of what is missing', () => {
    const script = `import(${JSON.stringify(join(import.meta.dirname, '../hosts/hosts.ts'))}).then(m => m.Hosts.make(1)).catch(e => console.log(e.message))`
    const { stdout } = spawnSync(process.execPath, ['-e', script], { env: { PATH: '/nonexistent' }, encoding: 'utf8' })
    expect(stdout).toContain('apt-get install -y iproute2 util-linux')
  })
})
