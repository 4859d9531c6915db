/**
 * What `diapause doctor` asks of the host beside QEMU: each a function that looks at or tries something, and says what it means and
 * what to do. None changes anything. Bounds are guesses where nothing else is said.
 */
import { execFile } from 'node:child_process'
import { mkdtemp, open, readFile, rm, stat, statfs } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { freemem } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { messageOf } from '../errors.ts'
import type { Finding } from '../ports.ts'

const MIB = 2 ** 20
const run = promisify(execFile)

/** What came of using it, as this user in this container: whether the kernel has it says less than that. */
export type UserfaultfdTrial = { readonly works: true } | { readonly works: false; readonly why: string }

/** Snapshots and restores are made by it. `tried` undefined: nothing here can try it. */
export async function checkUserfaultfd(tried: UserfaultfdTrial | undefined, read = textOf): Promise<Finding> {
  const check = 'userfaultfd'
  if (tried?.works)
    return { check, state: 'good', says: 'a page that was missing was put in its place, as in a restore' }
  const allowed = await read('/proc/sys/vm/unprivileged_userfaultfd')
  const fix =
    'run the peer as root, or sysctl vm.unprivileged_userfaultfd=1 (and in /etc/sysctl.d, for the next boot), or let it open /dev/userfaultfd (Linux 6.1); a container needs seccomp:unconfined, and that device or SYS_PTRACE'
  if (allowed === undefined)
    return {
      check,
      state: 'broken',
      says: 'this kernel has none: VMs are neither cut nor restored without',
      fix: 'a kernel with CONFIG_USERFAULTFD'
    }
  if (tried !== undefined)
    return { check, state: 'broken', says: `${tried.why}: VMs are neither cut nor restored without`, fix }
  const untried = 'it was not tried, as its helper is missing'
  const helper = 'see to the helpers in C, then run doctor again'
  if (process.getuid?.() === 0) return { check, state: 'unknown', says: `for root; ${untried}`, fix: helper }
  if (allowed.trim() === '1') return { check, state: 'unknown', says: `for everybody; ${untried}`, fix: helper }
  return { check, state: 'broken', says: `for root only: VMs are neither cut nor restored without; ${untried}`, fix }
}

/** A vote or a commit waits for as long as the disk takes. */
const SLOW_FSYNC_MS = 30
const FSYNCS = 15

export async function checkFsync(dataDir: string): Promise<Finding> {
  const check = 'fsync'
  const parent = await nearest(dataDir)
  let folder: string | undefined
  try {
    folder = await mkdtemp(join(parent, '.doctor-'))
    const file = await open(join(folder, 'file'), 'w')
    const tookMs: number[] = []
    for (let each = 0; each < FSYNCS; each++) {
      const fromMs = performance.now()
      await file.write(Buffer.alloc(4_096, each))
      await file.datasync()
      tookMs.push(performance.now() - fromMs)
    }
    await file.close()
    const median = tookMs.toSorted((a, b) => a - b)[FSYNCS >> 1] ?? 0
    const says = `4 KiB are on the disk of ${parent} after ${median.toFixed(1)} ms`
    if (median <= SLOW_FSYNC_MS) return { check, state: 'good', says }
    return {
      check,
      state: 'worse',
      says: `${says}: each vote and each snapshot waits for that`,
      fix: 'put peer.dataDir on an SSD, or one with less to do'
    }
  } catch (error) {
    return {
      check,
      state: 'broken',
      says: `the data folder cannot be written: ${messageOf(error)}`,
      fix: `make ${dataDir} with an owner who runs the peer`
    }
  } finally {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true })
  }
}

/** RAM of VMs that this peer runs: in files of a tmpfs, which take what was written, and of QEMU's own. */
export interface RunningRam {
  readonly filesMiB: number
  readonly ownMiB: number
}

/** `running` undefined: no peer of this config answers, and VMs that run here are another's. */
export async function checkMemory(
  vmMemoryMiB: number,
  running: RunningRam | undefined,
  read = textOf
): Promise<Finding> {
  const check = 'memory'
  const text = (await read('/proc/meminfo')) ?? ''
  const available = kib(text, 'MemAvailable') ?? freemem() / 1_024
  const has = Math.floor(available / 1_024)
  const { filesMiB, ownMiB } = running ?? { filesMiB: 0, ownMiB: 0 }
  const takenMiB = Math.min(filesMiB, Math.floor((kib(text, 'Shmem') ?? 0) / 1_024)) + ownMiB
  const beside = takenMiB === 0 ? '' : ` beside ${takenMiB} MiB of its VMs`
  const says = `${has} MiB are available${beside}, and VMs are given ${vmMemoryMiB} MiB at most (hypervisor.vmMemoryMiB)`
  if (has + takenMiB >= vmMemoryMiB) return { check, state: 'good', says }
  const others = running === undefined ? '; VMs of a peer that does not answer here count as others' : ''
  const fix = `set hypervisor.vmMemoryMiB to what is left by other programs, or end them${others}`
  return { check, state: 'worse', says: `${says}: plans count on more than there is`, fix }
}

/** Memory set aside for huge pages is lost to VMs, whose RAM is in a tmpfs. */
export async function checkHugePages(read = textOf): Promise<Finding> {
  const check = 'huge pages'
  const text = (await read('/proc/meminfo')) ?? ''
  const count = Number(/^HugePages_Free:\s+(\d+)/m.exec(text)?.[1] ?? 0)
  const asideMiB = Math.floor((count * (kib(text, 'Hugepagesize') ?? 0)) / 1_024)
  if (asideMiB === 0)
    return { check, state: 'good', says: 'no memory is set aside for them: RAM of VMs is in pages of 4 KiB' }
  return {
    check,
    state: 'worse',
    says: `${asideMiB} MiB are set aside for them, which VMs here cannot use`,
    fix: 'sysctl vm.nr_hugepages=0, unless other programs need them'
  }
}

/** Sockets, files and streams of a peer with some VMs. A guess: each VM has some 30, each member 10. */
const FEW_FILES = 4_096

export async function checkFiles(read = textOf): Promise<Finding> {
  const check = 'open files'
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec((await read('/proc/self/limits')) ?? '')?.[1] ?? ''
  const says = `a process may have ${hard} open`
  if (hard === 'unlimited' || Number(hard) >= FEW_FILES) return { check, state: 'good', says }
  return {
    check,
    state: 'worse',
    says: `${says}: with many VMs and members that is too few`,
    fix: `ulimit -Hn ${FEW_FILES * 4}, or LimitNOFILE=${FEW_FILES * 4} in its systemd unit`
  }
}

/** A place where the peer listens. `need`: it does not start without it. */
export interface WantedPort {
  readonly check: string
  readonly host: string
  readonly port: number
  readonly setting: 'peer.listen' | 'api.listen'
  readonly need: boolean
}

/** `had`: whether a peer of this config has it; undefined: none runs. */
export async function checkPort(wanted: WantedPort, had: boolean | undefined): Promise<Finding> {
  const { check, host, port, setting, need } = wanted
  const where = `${host} port ${port} (${setting})`
  const taken = (why: string): Finding => ({
    check,
    state: need ? 'broken' : 'worse',
    says: `${where} is not to be had: ${why}${need ? '' : '; the API is on its socket alone, without the page'}`,
    fix: `end who has it (ss -ltnp), or set another ${setting}`
  })
  if (had !== undefined) {
    return had ? { check, state: 'good', says: `the peer has ${where}` } : taken('the peer that runs has not got it')
  }
  return await new Promise(resolve => {
    const server = createServer()
    server.once('error', error => resolve(taken(error.message)))
    server.listen(port, host, () => server.close(() => resolve({ check, state: 'good', says: `${where} is free` })))
  })
}

const REACH_MS = 2_000

/** Whether something answers where other members are said to be. Who they are is proven when peers connect. */
export async function checkReach(
  members: readonly { readonly name: string; readonly host: string; readonly port: number }[]
): Promise<Finding> {
  const check = 'members'
  if (members.length === 0) return { check, state: 'good', says: 'no others are known here' }
  const silent = (await Promise.all(members.map(async each => ((await answers(each)) ? [] : [each])))).flat()
  if (silent.length === 0) return { check, state: 'good', says: `${members.length} answer` }
  const names = silent.map(({ name, host, port }) => `${name} (${host} port ${port})`).join(', ')
  return {
    check,
    state: 'worse',
    says: `no answer from ${names}`,
    fix: 'see whether their peers run, and let TCP to that port pass their firewalls'
  }
}

/** Others' clocks against ours. Nothing is decided by wall clocks, but what is shown and kept by hours and days is. */
const FAR_MS = 1_000

const KEEP_TIME = 'run chrony or systemd-timesyncd on all hosts (timedatectl says whether it does)'

/** `members`: those that answered a peer of this config; undefined: none runs. */
export async function checkClock(
  members: readonly { readonly name: string; readonly aheadMs: number }[] | undefined,
  synchronized = kernelSynchronized
): Promise<Finding> {
  const check = 'clock'
  if (members === undefined || members.length === 0) {
    const says = `not compared with members: ${members === undefined ? 'no peer runs here' : 'none has answered'}`
    const kernel = await synchronized()
    if (kernel === true) return { check, state: 'good', says: `${says}; the kernel's is synchronized` }
    if (kernel === false) {
      return { check, state: 'worse', says: `${says}; the kernel's is not synchronized`, fix: KEEP_TIME }
    }
    const fix = `run doctor again when the peer runs and sees others; ${KEEP_TIME}`
    return { check, state: 'unknown', says: `${says}, and nothing here says whether it is synchronized`, fix }
  }
  const far = members.filter(({ aheadMs }) => Math.abs(aheadMs) > FAR_MS)
  if (far.length === 0)
    return { check, state: 'good', says: `within a second of ${members.length} members that answered` }
  const by = far.map(
    ({ name, aheadMs }) => `${name} is ${(Math.abs(aheadMs) / 1_000).toFixed(1)} s ${aheadMs > 0 ? 'ahead' : 'behind'}`
  )
  return {
    check,
    state: 'worse',
    says: `${by.join(', ')}: times of events and snapshots mislead`,
    fix: KEEP_TIME
  }
}

const ASK_MS = 5_000

/**
 * Whether something keeps the kernel's clock (adjtimex(2)), by programs that can ask: timedatectl, which needs systemd, or chronyc.
 * Undefined: neither can.
 */
export async function kernelSynchronized(ask = outputOf): Promise<boolean | undefined> {
  const systemd = (await ask('timedatectl', ['show', '--property=NTPSynchronized', '--value']))?.trim()
  if (systemd === 'yes' || systemd === 'no') return systemd === 'yes'
  const leap = /^Leap status\s*:\s*(.+)$/m.exec((await ask('chronyc', ['-n', 'tracking'])) ?? '')?.[1]
  return leap === undefined ? undefined : !leap.startsWith('Not')
}

/** Undefined: it is not there, or fails. */
const outputOf = (program: string, words: readonly string[]): Promise<string | undefined> =>
  run(program, words, { timeout: ASK_MS }).then(
    ({ stdout }) => stdout,
    () => undefined
  )

/** `/ip4/10.0.0.1/tcp/7400` → where TCP goes. Undefined: it says something else. */
export function tcpOf(address: string): { host: string; port: number } | undefined {
  const [, host, port] = /^\/(?:ip4|ip6|dns|dns4|dns6)\/([^/]+)\/tcp\/(\d+)$/.exec(address) ?? []
  return host === undefined ? undefined : { host, port: Number(port) }
}

const kib = (meminfo: string, name: string): number | undefined => {
  const found = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(meminfo)?.[1]
  return found === undefined ? undefined : Number(found)
}

const textOf = (path: string): Promise<string | undefined> => readFile(path, 'utf8').catch(() => undefined)

/** The folder, or the nearest one above it that is there. */
async function nearest(folder: string): Promise<string> {
  const there = await stat(folder).then(
    found => found.isDirectory(),
    () => false
  )
  return there || dirname(folder) === folder ? folder : await nearest(dirname(folder))
}

function answers({ host, port }: { readonly host: string; readonly port: number }): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ host, port, timeout: REACH_MS })
    const end = (answered: boolean): void => {
      socket.destroy()
      resolve(answered)
    }
    socket
      .on('connect', () => end(true))
      .on('timeout', () => end(false))
      .on('error', () => end(false))
  })
}

/** What is free of a tmpfs, in MiB. */
export async function freeMiB(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder)
  return Math.floor((bavail * bsize) / MIB)
}
