/**
 * The whole, once: three peers in processes of their own, two real VMs that move money, hosts that die. The tests are one
 * story in order, on one cluster: each begins where the one before it ended.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ApiClient } from '../../node/edge/client.ts'
import type { ConsoleLine } from '../../node/edge/console-view.ts'
import { MAX_AGO_MS, type Story } from '../../protocols/decisions/merge.ts'
import { guestName } from '../../node/hypervisor/command-line.ts'
import { naming } from '../demo/processes.ts'
import { Bank, calm } from './bank.ts'

/** Of 2 VMs with 64 accounts of 1,000 coins each. */
const SOUND = { money: 128_000, gaps: 0, broken: 0, faults: [] }

describe('a bank on three peers, any one of which may be lost', () => {
  let bank: Bank
  let nonces: string[]
  let stopped = false

  beforeAll(async () => {
    const settings = { ...calm, shards: { k: 2, m: 1 } }
    bank = await Bank.start({ peers: 3, settings, vms: 2, memoryMiB: 128 })
  }, 240_000)

  afterAll(async () => {
    if (!stopped) await bank?.cluster.stop()
  })

  it('works, and commits epochs whoever proposes them', async () => {
    const audit = await bank.audit()
    expect(audit).toMatchObject(SOUND)
    nonces = audit.nonces
    const first = await bank.epoch(bank.peer('p1'))
    await bank.working()
    const second = await bank.epoch(bank.peer('p3'))
    expect(second).toBeGreaterThan(first)
    expect((await bank.record()).committed?.epoch).toBe(second)
    expect(await bank.owners()).toEqual({ vm1: 'p1', vm2: 'p2' })
  })

  it('goes on from the last epoch when a host dies with its VM: no coin, transfer or connection is lost', async () => {
    const committed = (await bank.record()).committed?.epoch
    const reader = readConsole(bank.peer('p2').client, 'vm1')
    await bank.working() // past the snapshot, so that there is something to roll back
    const decided = await bank.killAndWait(bank.peer('p1'))
    expect(decided).toMatchObject({ epoch: committed, lost: ['vm1'] })
    expect(await bank.owners()).toEqual({ vm1: 'p3', vm2: 'p2' })
    // The same VMs, not VMs that booted again.
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
    // Who read the console of that VM at another host reads on, and what the audit made it say came from its new one.
    await bank.until('the console to go on', async () => (reader.heardSince('p3').includes('\n') ? true : undefined))
    expect(reader.hosts()).toEqual(['p1', 'p3'])
    await reader.end()
  })

  it('tells on a survivor why: the suspicion, the votes on the ballot, the lease, and the new owner', async () => {
    const [gone, decider, owner] = ['p1', 'p2', 'p3'].map(name => bank.peer(name).id)
    const { stdout } = await diapause('why', 'vm1', '--json', '--socket', bank.peer('p2').socketPath)
    const story = JSON.parse(stdout) as Story
    expect(story.silent.map(({ peer }) => peer)).toEqual([gone])
    const facts = story.told.map(({ by, fact }) => ({ teller: by, ...fact }))
    const accepted = [decider, owner].map(peer => ({ peer, vote: 'accepted' }))
    for (const expected of [
      { kind: 'suspected', peer: gone },
      { kind: 'declared-dead', peer: gone },
      { kind: 'plan', generation: 1, moves: [expect.objectContaining({ vm: 'vm1', to: owner })] },
      { kind: 'ballot', outcome: 'chosen', votes: expect.arrayContaining(accepted) },
      { kind: 'generation', generation: 2, displaced: { vm1: gone } },
      { kind: 'lease', event: 'granted', generation: 2, teller: owner },
      { kind: 'vm', event: 'resumed', generation: 2, teller: owner }
    ]) {
      expect(facts).toContainEqual(expect.objectContaining(expected))
    }
    const { stdout: text } = await diapause('why', 'vm1', '--socket', bank.peer('p3').socketPath)
    expect(text).toMatch(/Moved from p1 to p3 and taken back to epoch \d+, because p1 was declared dead/)
    expect(text).toContain('Not told by p1')
  })

  it('commits epochs with one peer less', async () => {
    const before = (await bank.record()).committed?.epoch ?? 0
    expect(await bank.epoch(bank.peer('p2'))).toBeGreaterThan(before)
  })

  it('takes a peer back that was dead: it learns what happened and runs no VM that is not its any more', async () => {
    const returned = bank.peer('p1')
    // As if its host had lived on and only the peer had died: a VM of its that nobody stopped.
    const stale = spawnQemu(returned.id)
    bank.cluster.startPeer(returned)
    await once(stale, 'exit')
    expect(stale.signalCode).toBe('SIGKILL')
    await bank.cluster.allConnected(60_000)
    const { version, generation } = await bank.record()
    await bank.until('the peer to learn of the group', async () =>
      (await bank.at(returned)).version === version ? true : undefined
    )
    expect(await bank.at(returned)).toEqual({ running: [], version, generation })
    expect(naming(`${returned.runDir}/`).map(each => each.command)).toEqual([])
    await bank.working()
    expect((await bank.record()).generation).toBe(generation)
    // What it noted before it was killed was on its disk.
    const { told } = await returned.client.why({ group: 'bank', vm: 'vm1', agoMs: MAX_AGO_MS, here: true })
    const noted = told.filter(({ by, fact }) => by === returned.id && fact.kind === 'lease' && fact.generation === 1)
    expect(noted).toContainEqual(expect.objectContaining({ fact: expect.objectContaining({ event: 'granted' }) }))
  })

  it('counts on the peer that came back: after one more epoch a second host may die', async () => {
    // Of three columns p1 holds one again, else the two that are needed would not be left. Also what was stored while p1
    // was away, with two columns at one peer, must not be needed any more.
    const committed = await bank.epoch(bank.peer('p1'))
    await bank.working()
    const decided = await bank.killAndWait(bank.peer('p2'))
    expect(decided).toMatchObject({ epoch: committed, lost: ['vm2'] })
    expect(await bank.owners()).toEqual({ vm1: 'p3', vm2: 'p1' })
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
    expect(await bank.epoch(bank.peer('p3'))).toBeGreaterThan(committed)
  })

  it('goes back as a whole when a host restarts so soon that nobody missed it', async () => {
    bank.cluster.startPeer(bank.peer('p2'))
    await bank.cluster.allConnected(60_000)
    const committed = await bank.epoch(bank.peer('p2'))
    const { generation } = await bank.record()
    await bank.working()
    // Its VM dies with it, and by the record it still owns that VM: alone it would come back to an older time than the rest.
    await bank.cluster.killPeer(bank.peer('p3'))
    bank.cluster.startPeer(bank.peer('p3'))
    const survivor = bank.peer('p1')
    await bank.until('a new generation', async () =>
      (await bank.at(survivor)).generation > generation ? true : undefined
    )
    await bank.cluster.allConnected(60_000)
    const record = await bank.record()
    expect(record.committed?.epoch).toBe(committed)
    await bank.working()
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
  })

  it('leaves no process, socket or folder behind when it is stopped', async () => {
    const { dir } = bank.cluster
    const faults = await bank.cluster.stop()
    stopped = true
    expect(faults).toEqual([])
    expect(naming(`${dir}/`)).toEqual([])
    expect(existsSync(dir)).toBe(false)
  })
})

/** The command line, as a process of its own. */
function diapause(...args: string[]): Promise<{ stdout: string }> {
  return promisify(execFile)(process.execPath, [join(import.meta.dirname, '../../node/main.ts'), ...args])
}

/** A QEMU that looks like a VM of the peer; it ends with this process if nobody ends it before. */
function spawnQemu(peerId: string): ChildProcess {
  const args = ['-name', `guest=${guestName(peerId, 'vm1')}`, '-accel', 'tcg', '-nodefaults', '-display', 'none', '-S']
  return spawn('setpriv', ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...args, '-m', '16'], { stdio: 'ignore' })
}

/** What a VM says, as somebody hears it who follows its console. */
function readConsole(client: ApiClient, vm: string) {
  const lines: ConsoleLine[] = []
  const stop = new AbortController()
  const reading = (async () => {
    const wish = { group: 'bank', vm, history: 0, follow: true }
    for await (const line of client.console(wish, stop.signal)) lines.push(line)
  })()
  return {
    hosts: () => lines.flatMap(line => ('host' in line ? [line.host] : [])),
    heardSince: (host: string) => {
      const from = lines.findLastIndex(line => 'host' in line && line.host === host)
      const bytes = (from < 0 ? [] : lines.slice(from)).map(line => ('data' in line ? line.data : ''))
      return bytes.map(data => Buffer.from(data, 'base64').toString('latin1')).join('')
    },
    end: async () => {
      stop.abort()
      await reading
    }
  }
}
