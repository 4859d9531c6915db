/** Would the group come back? Drills of a bank that works on meanwhile: they pass, fail, are given up, and leave nothing. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { targetSchema } from '../../config/notices.ts'
import type { DrillReport } from '../../node/ports.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { ClusterPeer } from '../demo/cluster.ts'
import { naming, signal } from '../demo/processes.ts'
import { bankTotal } from '../guest/build.ts'
import { conservation, parseConsole } from '../guest/console.ts'
import { Bank, calm, GROUP } from './bank.ts'

const main = join(import.meta.dirname, '../../node/main.ts')
const arp = join(import.meta.dirname, 'drill-arp.ts')
/** For a command. Several times what a busy machine took. */
const LIMIT_MS = 120_000
/** Of an audit that the live bank is never asked for. */
const AUDIT = 70

const bothSay = (text: string, pattern: string): string => {
  const asking = [1, 2].map(vm => `drill-say vm${vm} '${text}' '${pattern}' 60 & p${vm}=$!`)
  return `{ ${asking.join('; ')}; wait $p1 && wait $p2; }`
}
/** Both are connected with each other, sound, and heard on the network. */
const books = [
  bothSay('', 'BANK vm=.* conns=2'),
  bothSay(`audit ${AUDIT}`, `AUDIT id=${AUDIT}`),
  `"${process.execPath}" "${arp}" "$DIAPAUSE_DRILL" 10.9.0.1`
].join(' && ')

const sleepers = (seconds: number): number =>
  naming(`sleep ${seconds}`).filter(({ command }) => command === `sleep ${seconds}`).length

describe('a drill of a bank that works', () => {
  let bank: Bank
  let left: ClusterPeer
  let right: ClusterPeer
  let epoch: number
  let dir: string
  /** What people are told, by a command. */
  let told: string

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'diapause-told-'))
    told = join(dir, 'told')
    const command = `printf '%s\\n' "$DIAPAUSE_TEXT" >> '${told}'`
    const notifications = [targetSchema.parse({ name: 'people', on: ['drill-failed'], command })]
    bank = await Bank.start({
      peers: 3,
      roles: ['storage', 'storage', 'witness'],
      settings: { ...calm, shards: { k: 1, m: 1 }, drills: { memoryMiB: 1_024, checks: { books } }, notifications },
      vms: 2,
      memoryMiB: 96,
      disks: [{ sizeMiB: 4 }]
    })
    ;[left, right] = bank.cluster.peers as [ClusterPeer, ClusterPeer]
    await bank.epoch(left)
    epoch = await bank.epoch(left)
  }, 240_000)

  afterAll(async () => {
    await bank?.cluster.stop()
    await rm(dir, { recursive: true, force: true })
  })

  /** `diapause ARGS` at a peer. */
  function run(peer: ClusterPeer, ...args: string[]): Promise<{ code: number; out: string; err: string }> {
    return new Promise(resolve => {
      const command = [main, ...args, '--socket', peer.socketPath]
      execFile(process.execPath, command, { timeout: LIMIT_MS }, (error, out, err) =>
        resolve({ code: typeof error?.code === 'number' ? error.code : error === null ? 0 : -1, out, err })
      )
    })
  }

  const folderOf = ({ runDir }: ClusterPeer): string => join(runDir, 'drill')

  /** No process, no socket, no hold; the live VMs are all that runs. */
  async function nothingLeft(peer: ClusterPeer): Promise<void> {
    await bank.until('the end of the drill', async () => {
      const { held } = await bank.record()
      return existsSync(folderOf(peer)) || held !== undefined ? undefined : true
    })
    expect(naming(folderOf(peer)).map(({ command }) => command)).toEqual([])
    // Not those that run now: on a busy machine a live VM may wait for its lease at the moment of asking.
    const live = Object.values((await bank.record()).owners).filter(owner => owner === peer.id).length
    expect(naming(`guest=diapause:${peer.id}:`).length).toBe(live)
    const files = async (folder: string, name: RegExp) =>
      (await readdir(folder).catch(() => [])).filter(each => name.test(each)).length
    expect(await files(peer.runDir, /\.nic\d?$/)).toBe(live)
    expect(await files(peer.runDir, /\.(incoming|blocks)$/)).toBe(0)
    expect(await files(join(peer.dataDir, 'disks'), /./)).toBe(live)
  }

  it('goes on from an epoch while the bank does not notice: its VMs speak with each other, with nobody else, and are sound', async () => {
    const before = await bank.record()
    const { code, out, err } = await run(right, 'drill', GROUP, '--check', books, '--json')
    expect({ code, err }, out).toEqual({ code: 0, err: '' })
    const report = JSON.parse(out) as DrillReport
    expect(report).toMatchObject({ group: GROUP, epoch, peer: right.name, check: { exitCode: 0 } })
    for (const { runsMs = 0, wholeMs = 0, pagesPushed = 0 } of report.vms) {
      expect([runsMs > 0, wholeMs >= runsMs, pagesPushed > 0]).toEqual([true, true, true])
    }
    const audits = parseConsole(report.check?.output.join('\n') ?? '').filter(({ kind }) => kind === 'AUDIT')
    expect(conservation(audits, bankTotal({ total: 2 })), out).toMatchObject({ gaps: 0, broken: 0, faults: [] })
    expect(report.check?.output.at(-1)).toMatch(/^10\.9\.0\.1 is at 525400d10001$/)
    await nothingLeft(right)

    const { generation, committed, owners, lastEpoch, drills } = await bank.record()
    expect({ generation, committed, owners, lastEpoch }).toEqual({
      generation: before.generation,
      committed: before.committed,
      owners: before.owners,
      lastEpoch: before.lastEpoch
    })
    expect(drills?.last).toMatchObject({ epoch, by: right.id })
    expect(bank.consoles.audits(AUDIT)).toEqual([])
    await bank.working()
    const live = await bank.audit()
    expect(live).toMatchObject({ money: bankTotal({ total: 2 }), gaps: 0, broken: 0, faults: [] })
    expect(live.nonces.toSorted()).toEqual(audits.map(({ nonce }) => nonce).toSorted())
  }, 240_000)

  it('fails, and says so everywhere, where its check does', async () => {
    const { code, out, err } = await run(left, 'drill', GROUP, '--check', 'echo the books are wrong >&2; exit 7')
    expect(code, err).toBe(1)
    expect(err).toMatch(/the drill failed.*DRILL_FAILED/)
    expect(out).toMatch(/the books are wrong[\s\S]*FAILED: the check ended with exit code 7/)
    await nothingLeft(left)
    expect((await run(right, 'status')).out).toMatch(
      /drills: on request; .* on p1 from epoch \d+, FAILED: the check ended/
    )
    const feed = await run(left, 'events')
    expect(feed.out).toMatch(/drill\.failed group=bank .*exit code 7/)
    const says = await bank.until('people to be told', () => {
      const text = existsSync(told) ? readFileSync(told, 'utf8') : ''
      return text.endsWith('\n') ? text : undefined
    })
    expect(says).toMatch(
      /^A drill of group bank failed: .* from snapshot \d+\. the check ended.*exit code 7.* by p1\.\n$/
    )
  }, 120_000)

  it('is refused where it cannot be: no such epoch, another under way, no memory for it, a witness', async () => {
    const witness = bank.peer('p3')
    expect(await run(right, 'drill', GROUP, '--epoch', '999')).toMatchObject({ code: 2, out: '' })
    expect((await run(witness, 'drill', GROUP)).err).toMatch(/ask a storage member.*NOT_STORAGE/)
    expect((await run(right, 'drill', 'none')).err).toMatch(/GROUP_UNKNOWN/)
    expect((await run(right, 'drill', 'schedule', GROUP, '--every', '1h', '--check', 'none')).err).toMatch(
      /it has books/
    )
  }, 60_000)

  it('is taken away when whoever asked for it goes, with all that its check has started', async () => {
    const check = `(setsid sleep 4321 &); sleep 4322; : "$DIAPAUSE_DRILL"`
    const asking = spawn(process.execPath, [main, 'drill', GROUP, '--check', check, '--socket', right.socketPath])
    await checking(right)
    expect((await run(right, 'drill', GROUP)).err).toMatch(/at a drill of group "bank" already.*DRILL_BUSY/)
    await gone(asking)
    await bank.until('the check to end', () => (sleepers(4321) + sleepers(4322) > 0 ? undefined : true))
    await nothingLeft(right)
  }, 120_000)

  it('comes by itself on the peer of the first VM, once, and is told of', async () => {
    expect(await run(right, 'drill', 'schedule', GROUP, '--every', '1h', '--check', 'books')).toMatchObject({ code: 0 })
    const { last, schedule } = await bank.until('a drill of the schedule', async () => {
      const { drills }: GroupRecord = await bank.record()
      return drills?.last?.by === left.id &&
        drills.schedule?.begunMs !== undefined &&
        drills.schedule.runs === undefined
        ? drills
        : undefined
    })
    expect(last).toEqual({ epoch, by: left.id, atMs: last?.atMs, tookMs: last?.tookMs })
    expect(schedule).toMatchObject({ everyMs: 3_600_000, check: 'books' })
    expect((await run(right, 'status')).out).toMatch(
      /drills: every 1 h 0 min; the last, .* on p1 from epoch \d+, passed/
    )
    await nothingLeft(left)
    await nothingLeft(right)
    expect(await run(left, 'drill', 'schedule', GROUP, '--off')).toMatchObject({ code: 0 })
    expect((await bank.record()).drills?.schedule).toBeUndefined()
  }, 180_000)

  it('is over with its peer: what is left of it is ended when the peer comes back', async () => {
    const check = `(setsid sleep 5321 &); sleep 5322`
    const asking = spawn(process.execPath, [main, 'drill', GROUP, '--check', check, '--socket', right.socketPath])
    await checking(right)
    await bank.killAndWait(right)
    expect(sleepers(5321)).toBe(1)
    bank.cluster.startPeer(right)
    await bank.until('the peer to be back', async () => (await right.client.status().catch(() => undefined)) && true)
    expect(sleepers(5321)).toBe(0)
    await nothingLeft(right)
    await gone(asking)
    expect(await bank.audit()).toMatchObject({ gaps: 0, broken: 0, faults: [] })
  }, 180_000)

  /** Until the check of a drill is under way. */
  async function checking(peer: ClusterPeer): Promise<void> {
    await bank.until('a check', () => (sleepers(5322) + sleepers(4322) > 0 ? true : undefined))
    expect(existsSync(folderOf(peer))).toBe(true)
  }

  async function gone(child: ChildProcess): Promise<void> {
    if (child.exitCode !== null) return
    const exited = new Promise(resolve => child.once('exit', resolve))
    signal(child.pid ?? 0, 'SIGKILL')
    await exited
  }
})
