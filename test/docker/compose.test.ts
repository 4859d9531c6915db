/**
 * The shipped image and compose files under a real engine: what `docker/README.md` says to type, then a peer that is
 * killed and a peer whose network is gone. The tests are one story in order: look at the first that fails.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { PeerStatus } from '../../node/edge/view.ts'
import type { Finding } from '../../node/ports.ts'
import { loopback } from '../demo/cluster.ts'
import { buildGuest } from '../guest/build.ts'
import { ContainerBank } from './bank.ts'
import { Compose } from './compose.ts'
import { Engine } from './engine.ts'

const peers = ['peer1', 'peer2', 'peer3', 'peer4', 'peer5']
/** Of 2 VMs with 64 accounts of 1,000 coins each. */
const SOUND = { money: 128_000, gaps: 0, broken: 0, faults: [] }

let engine: Engine
let dir: string

beforeAll(async () => {
  engine = await Engine.start()
  dir = await mkdtemp(join(tmpdir(), 'dc-'))
}, 400_000)

afterAll(async () => {
  await engine?.stop()
  if (dir !== undefined) await rm(dir, { recursive: true, force: true })
}, 60_000)

describe('five peers by docker/compose.yaml', () => {
  let five: Compose
  let bank: ContainerBank
  let nonces: string[]

  beforeAll(async () => {
    five = new Compose({ engine, file: 'docker/compose.yaml', project: 'diapause', dir, runDir: '/run/diapause' })
    bank = new ContainerBank(five, peers, 2)
  })

  afterAll(async () => {
    await five?.down()
  }, 60_000)

  it('are built and come up healthy', async () => {
    await five.compose('up', '--build', '--wait', '--quiet-pull')
    await bank.connected()
    expect(await five.diapause('peer1', 'status', '--socket', '/run/diapause/api.sock')).toContain('peer5')
  }, 400_000)

  it('have all that VMs need, by doctor, without a compiler', async () => {
    const { findings } = JSON.parse(await five.diapause('peer2', 'doctor', '--json')) as { findings: Finding[] }
    const found = Object.fromEntries(findings.map(({ check, state }) => [check, state]))
    expect(found).toMatchObject({
      programs: 'good',
      helpers: 'good',
      userfaultfd: 'good',
      QEMU: 'good',
      capture: 'good'
    })
  }, 60_000)

  it('show the dashboard to this host, and their API to who has a token', async () => {
    const peer = 'http://10.78.0.11:7480'
    const page = await fetch(peer)
    expect([page.status, page.headers.get('content-type')]).toEqual([200, expect.stringContaining('text/html')])
    expect((await fetch(`${peer}/v1/status`)).status).toBe(401)
    const token = (await five.diapause('peer3', 'tokens', 'new', '--role', 'view', '--name', 'test')).trim()
    const asked = await fetch(`${peer}/v1/status`, { headers: { authorization: `Bearer ${token}` } })
    expect(await asked.json()).toMatchObject({ name: 'peer1' })
  })

  it('run VMs that are defined and take a snapshot of them', async () => {
    const { kernel, initrd } = await buildGuest()
    for (const file of [kernel, initrd, 'docker/bank.yaml']) await five.compose('cp', file, 'peer1:/cluster/')
    await five.diapause('peer1', 'vm', 'define', '/cluster/bank.yaml')
    await bank.working()
    const { nonces: begun, ...found } = await bank.audit()
    expect(found).toEqual(SOUND)
    nonces = begun
    await bank.epoch('peer3')
  }, 120_000)

  it('go on when the main process of a container is killed, which comes back', async () => {
    await bank.working()
    const after = await bank.generation()
    process.kill(await five.mainPid('peer1'), 'SIGKILL')
    await bank.recovered(after, peers)
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
    await bank.connected()
    expect(await bank.processes()).toEqual({ vm1: 1, vm2: 1 })
  }, 180_000)

  it('go on when the network of another is gone, and run nothing twice when it is back', async () => {
    const owner = (await bank.running())['vm2']?.[0] ?? ''
    await bank.epoch(owner)
    await bank.working()
    const after = await bank.generation()
    const network = 'diapause_hosts'
    const container = five.container(owner)
    await engine.docker('network', 'disconnect', network, container)
    const others = peers.filter(peer => peer !== owner)
    await bank.recovered(after, others)
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
    const address = `10.78.0.1${owner.slice(-1)}`
    await engine.docker('network', 'connect', '--ip', address, network, container)
    await bank.connected()
    // What the cut-off one has left stands still since its lease ended, and is ended when that hears of its successor.
    await bank.until('each VM at one place', async () =>
      Object.values(await bank.running()).every(places => places.length === 1) ? true : undefined
    )
    await bank.until('one process of each VM', async () =>
      Object.values(await bank.processes()).every(count => count === 1) ? true : undefined
    )
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
  }, 180_000)
})

describe('one peer a host by docker/compose.host.yaml', () => {
  const hosts: Compose[] = []
  const data = '/var/lib/diapause'

  afterAll(async () => {
    for (const host of hosts) await host.down()
  }, 60_000)

  it('make a cluster and join it, and see each other through the network of their hosts', async () => {
    const [at1 = '', at2 = ''] = await loopback(2)
    for (const project of ['oak', 'elm']) {
      // Both on this machine, so each has a folder of its own; without KVM, which not every machine has.
      const env = { DIAPAUSE_DATA: join(dir, project), DIAPAUSE_KVM: '/dev/null' }
      const file = 'docker/compose.host.yaml'
      hosts.push(new Compose({ engine, file, project, dir: join(dir, project), env, runDir: `${data}/run` }))
    }
    const [oak, elm] = hosts
    if (oak === undefined || elm === undefined) throw new Error('two hosts were made')
    const made = ['--data-dir', data, '--listen']
    await oak.compose('run', '--rm', 'peer', 'init', '--cluster', 'forest', '--name', 'oak', ...made, at1)
    await oak.compose('up', '--wait')
    const token = (await oak.diapause('peer', 'invite')).trim()
    await elm.compose('run', '--rm', 'peer', 'join', token, '--name', 'elm', ...made, at2)
    await elm.compose('up', '--wait')
    const { members } = JSON.parse(await elm.diapause('peer', 'status', '--json')) as PeerStatus
    expect(members.map(({ name, liveness }) => `${name} ${liveness}`).sort()).toEqual(['elm alive', 'oak alive'])
  }, 180_000)
})
