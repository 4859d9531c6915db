/** What `diapause doctor` makes of a host: of files that the kernel would give, of a real disk and real ports. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  checkClock,
  checkFiles,
  checkFsync,
  checkHugePages,
  checkMemory,
  checkPort,
  checkReach,
  checkUserfaultfd,
  kernelSynchronized,
  tcpOf
} from '../../node/host/host-checks.ts'
import { checkUser, mayUse, type Sight } from '../../node/host/user-check.ts'

const file = (text: string | undefined) => () => Promise.resolve(text)

/** A peer that runs, and a user who sees nothing of this host. */
const running = { dataDir: '/d', using: 41 }
const blind: Sight = {
  text: file(undefined),
  ownerOf: async () => undefined,
  groupsOf: async () => undefined,
  mayUse: async () => undefined
}

describe('doctor', () => {
  it('says what memory VMs are promised that is not there, and what is set aside for nobody', async () => {
    const meminfo = file('MemAvailable:    2097152 kB\nHugePages_Free:      512\nHugepagesize:       2048 kB\n')
    expect(await checkMemory(2_048, undefined, meminfo)).toMatchObject({ state: 'good' })
    expect(await checkMemory(2_049, undefined, meminfo)).toMatchObject({
      state: 'worse',
      fix: expect.stringMatching(/vmMemoryMiB.*does not answer/)
    })
    expect(await checkHugePages(meminfo)).toMatchObject({ state: 'worse', says: expect.stringMatching(/^1024 MiB/) })
    expect(await checkHugePages(file('HugePages_Free: 0\n'))).toMatchObject({ state: 'good' })
  })

  it('takes no VM of the peer that answers for somebody else’s, nor RAM that it has not written for taken', async () => {
    const meminfo = file('MemAvailable:    2097152 kB\nShmem:           1048576 kB\n')
    const memory = async (mostMiB: number, filesMiB: number, ownMiB: number) =>
      (await checkMemory(mostMiB, { filesMiB, ownMiB }, meminfo)).state
    expect(await memory(3_072, 4_096, 0)).toBe('good')
    expect(await memory(3_073, 4_096, 0)).toBe('worse')
    expect(await memory(2_560, 512, 0)).toBe('good')
    expect(await memory(3_072, 0, 1_024)).toBe('good')
    expect(await memory(3_073, 0, 1_024)).toBe('worse')
  })

  it('says how many files may be open, and whether there is a userfaultfd', async () => {
    const limits = (hard: string) =>
      file(`Limit  Soft  Hard\nMax open files            1024                 ${hard}               files\n`)
    expect(await checkFiles(limits('1048576'))).toMatchObject({ state: 'good' })
    expect(await checkFiles(limits('1024'))).toMatchObject({
      state: 'worse',
      fix: expect.stringContaining('LimitNOFILE')
    })
    expect(await checkUserfaultfd(undefined, file(undefined))).toMatchObject({ state: 'broken' })
    expect(await checkUserfaultfd(undefined, file('1\n'))).toMatchObject({
      state: 'unknown',
      says: expect.stringContaining('not tried')
    })
  })

  it('believes what came of using userfaultfd, and not what the kernel allows', async () => {
    expect(await checkUserfaultfd({ works: true }, file('0\n'))).toMatchObject({ state: 'good' })
    const refused = { works: false, why: 'userfaultfd: Operation not permitted' } as const
    expect(await checkUserfaultfd(refused, file('1\n'))).toMatchObject({
      state: 'broken',
      says: expect.stringContaining('not permitted'),
      fix: expect.stringContaining('seccomp')
    })
  })

  it('writes to the disk of the data folder, also where that is yet to be made, and leaves nothing', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'diapause-doctor-'))
    expect(await checkFsync(join(folder, 'yet/to/be'))).toMatchObject({
      says: expect.stringContaining(`disk of ${folder} after`)
    })
    expect(readdirSync(folder)).toEqual([])
    rmSync(folder, { recursive: true })
    expect(await checkFsync('/proc/none')).toMatchObject({
      state: 'broken',
      fix: expect.stringContaining('/proc/none')
    })
  })

  it('tells a port that is taken from one that is free or the peer’s own, and members that answer from those that do not', async () => {
    const server = createServer()
    const port = await new Promise<number>(resolve => {
      server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port))
    })
    const there = { host: '127.0.0.1', port }
    const wanted = { check: 'port', ...there, setting: 'peer.listen', need: true } as const
    expect(await checkPort(wanted, undefined)).toMatchObject({
      state: 'broken',
      fix: expect.stringContaining('peer.listen')
    })
    expect(await checkPort(wanted, true)).toMatchObject({ state: 'good' })
    const api = { ...wanted, setting: 'api.listen', need: false } as const
    for (const had of [undefined, false]) {
      expect(await checkPort(api, had)).toMatchObject({ state: 'worse', fix: expect.stringContaining('api.listen') })
    }
    expect(await checkReach([{ name: 'elm', ...there }])).toMatchObject({ state: 'good', says: '1 answer' })
    await new Promise(resolve => server.close(resolve))
    expect(await checkPort(wanted, undefined)).toMatchObject({
      state: 'good',
      says: expect.stringContaining('is free')
    })
    expect(await checkReach([{ name: 'elm', ...there }])).toMatchObject({
      state: 'worse',
      says: expect.stringContaining('elm')
    })
  })

  it('says of a peer that root runs what a guest that breaks out of its QEMU has, and what to do about it', async () => {
    const asked: string[] = []
    const open = async (path: string) => asked.push(path) > 0 && /etc$|bus_socket$/.test(path)
    const root = file('Name:\tnode\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t\n')
    expect(await checkUser(running, { ...blind, text: root, mayUse: open })).toMatchObject({
      state: 'worse',
      says: expect.stringMatching(/^root runs the peer: .*: \/etc, \/run\/dbus\/system_bus_socket$/),
      fix: expect.stringMatching(/own-user\.conf.*As a service/)
    })
    expect(asked).toContain('/proc/41/root/usr')
    expect(await checkUser(undefined, { ...blind, text: root, mayUse: async () => true })).toMatchObject({
      state: 'worse',
      says: expect.stringMatching(/^root runs doctor, and so the peer: .*\/etc, \/usr/)
    })
  })

  it('finds no fault with a peer of another user, or of a root to whom what is root’s is closed, and calls none good that it cannot see', async () => {
    const user = (uid: number, may: boolean | undefined) =>
      checkUser(running, { ...blind, text: file(`Uid:\t0\t${uid}\t0\t0\n`), mayUse: async () => may })
    expect(await user(999, false)).toMatchObject({ state: 'good', says: expect.stringContaining('user 999') })
    expect(await user(0, false)).toMatchObject({ state: 'good', says: expect.stringContaining('closed') })
    for (const uid of [0, 999]) {
      expect(await user(uid, undefined)).toMatchObject({ state: 'unknown', fix: expect.stringContaining('as root') })
    }
    expect(await checkUser(running, blind)).toMatchObject({ state: 'unknown' })
  })

  it('takes who asks for the user of the peer only where none runs that it cannot see, and no data folder says otherwise', async () => {
    const text = file('Uid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nGroups:\t27 \n')
    const asking = { ...blind, text, mayUse: async () => false }
    const dataDir = '/d'
    const of = (owner: number | null | undefined, groups?: number[]) => {
      const sight = { ...asking, ownerOf: async () => owner, groupsOf: async () => groups }
      return checkUser({ dataDir, using: undefined }, sight)
    }
    expect(await checkUser({ dataDir, using: 'unseen' }, asking)).toMatchObject({
      state: 'unknown',
      says: expect.stringContaining('/d is closed'),
      fix: expect.stringContaining('as root')
    })
    expect(await of(null)).toMatchObject({
      state: 'good',
      says: expect.stringMatching(/^user 1000 runs doctor, and so/)
    })
    expect(await of(1_000)).toMatchObject({
      state: 'good',
      says: expect.stringMatching(/^user 1000 has the data folder/)
    })
    expect(await of(999, [999])).toMatchObject({ state: 'good', says: expect.stringMatching(/^user 999 has the data/) })
    expect(await of(999)).toMatchObject({ state: 'unknown' })
    expect(await of(undefined)).toMatchObject({ state: 'unknown' })
    expect(await of(0, [0])).toMatchObject({ says: expect.stringMatching(/^root has the data folder, and so runs/) })
    expect(await checkUser(undefined, asking)).toMatchObject({
      state: 'unknown',
      fix: expect.stringContaining('--config')
    })
  })

  it('does not take a user for less than root who has Docker’s socket by a group, nor another for more by what all may write to', async () => {
    const asked: string[] = []
    const sight = (groups: string): Sight => ({
      ...blind,
      text: file(`Uid:\t999\t999\t999\t999\nGid:\t999\t999\t999\t999\nGroups:\t${groups}\n`),
      mayUse: async (path, { uid, groups: all }) =>
        asked.push(path) > 0 &&
        (/dbus|systemd/.test(path) || (path.endsWith('/run/docker.sock') && uid === 999 && all.includes(998)))
    })
    expect(await checkUser(running, sight('27 998 '))).toMatchObject({
      state: 'worse',
      says: expect.stringMatching(/^user 999 runs the peer: .* gets to be root by .*: \/run\/docker\.sock$/),
      fix: expect.stringContaining('docker')
    })
    expect(await checkUser(running, sight('27 '))).toMatchObject({ state: 'good' })
    expect(asked).toContain('/proc/41/root/run/docker.sock')
  })

  it('knows whether a file is open to a user: as its owner, by one of its groups, or as to all', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'diapause-doctor-'))
    const path = join(folder, 'socket')
    writeFileSync(path, '')
    const { uid, gid } = statSync(path)
    const may = async (mode: number) => {
      chmodSync(path, mode)
      const users = [
        { uid, groups: [] },
        { uid: uid + 1, groups: [gid + 1, gid] },
        { uid: uid + 1, groups: [gid + 1] }
      ]
      return await Promise.all(users.map(user => mayUse(path, user)))
    }
    expect(await may(0o640)).toEqual([true, false, false])
    expect(await may(0o660)).toEqual([true, true, false])
    expect(await may(0o666)).toEqual([true, true, true])
    rmSync(folder, { recursive: true })
    expect(await mayUse(path, { uid, groups: [gid] })).toBe(false)
  })

  it('looks at files of root as the process of the peer sees them, which its unit may have made read-only', async () => {
    const may = spawnSync('unshare', ['--mount', 'true']).status === 0
    expect(may, 'only root, with CAP_SYS_ADMIN, can show a process other files: run this test so').toBe(true)
    const script = 'for each in /etc /usr; do mount --bind $each $each; mount -o remount,ro,bind $each; done; echo; cat'
    const peer = spawn('unshare', ['--mount', 'sh', '-ec', script], { stdio: ['pipe', 'pipe', 'inherit'] })
    try {
      await once(peer.stdout, 'data')
      expect((await checkUser(undefined)).says).toMatch(/: \/etc, \/usr, \/var, /)
      expect((await checkUser({ dataDir: '/d', using: peer.pid })).says).toMatch(/^root runs the peer: .*: \/var, /)
    } finally {
      peer.kill()
      await once(peer, 'close')
    }
  })

  it('compares clocks with members that answered', async () => {
    expect(await checkClock([{ name: 'elm', aheadMs: 300 }])).toMatchObject({ state: 'good' })
    expect(await checkClock([{ name: 'elm', aheadMs: -2_500 }])).toMatchObject({
      state: 'worse',
      says: expect.stringContaining('elm is 2.5 s behind')
    })
  })

  it.each([undefined, []])('does not call a clock good that was compared with nothing (members: %j)', async members => {
    const clock = (kernel: boolean | undefined) => checkClock(members, async () => kernel)
    expect(await clock(true)).toMatchObject({ state: 'good', says: expect.stringContaining('not compared') })
    expect(await clock(false)).toMatchObject({ state: 'worse', says: expect.stringContaining('not synchronized') })
    expect(await clock(undefined)).toMatchObject({ state: 'unknown', says: expect.stringContaining('not compared') })
  })

  it('asks who can know whether the kernel’s clock is kept', async () => {
    const asking = (answers: Readonly<Record<string, string>>) =>
      kernelSynchronized(program => Promise.resolve(answers[program]))
    expect(await asking({ timedatectl: 'yes\n' })).toBe(true)
    expect(await asking({ timedatectl: 'no\n', chronyc: 'Leap status     : Normal\n' })).toBe(false)
    expect(await asking({ chronyc: 'Reference ID : 0A\nLeap status     : Normal\n' })).toBe(true)
    expect(await asking({ chronyc: 'Leap status     : Not synchronised\n' })).toBe(false)
    expect(await asking({})).toBeUndefined()
  })

  it('knows where an address leads', () => {
    expect(tcpOf('/ip4/10.0.0.1/tcp/7400')).toEqual({ host: '10.0.0.1', port: 7_400 })
    expect(tcpOf('/dns4/oak.example/tcp/7400')).toEqual({ host: 'oak.example', port: 7_400 })
    expect(tcpOf('/ip4/10.0.0.1/udp/1')).toBeUndefined()
  })
})
