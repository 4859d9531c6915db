/**
 * The checks of `diapause doctor`: each a function of what is asked for that tries something and says what it found. A new
 * one is a function here and an entry in `checks`, in the order in which people read them. They run one after the other;
 * what one has found out the later ones may use.
 */
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { runDirOf } from '../config/limits.ts'
import { listeningOf } from '../config/listening.ts'
import { configSchema, type Config, type HypervisorSettings } from '../config/schema.ts'
import { ApiClient } from './edge/client.ts'
import type { Trying } from './edge/doctor.ts'
import { servedAt } from './edge/served-at.ts'
import { hasCode, messageOf } from './errors.ts'
import { systemClock } from './host/clock.ts'
import { processUsing } from './host/data-dir.ts'
import {
  checkClock,
  checkFiles,
  checkFsync,
  checkHugePages,
  checkMemory,
  checkPort,
  checkReach,
  checkUserfaultfd,
  freeMiB,
  tcpOf,
  type UserfaultfdTrial
} from './host/host-checks.ts'
import { type AskedPeer, checkUser } from './host/user-check.ts'
import { vmMemoryMiB } from './host/vm-memory.ts'
import { chooseAccel } from './hypervisor/accel.ts'
import { chooseCapture } from './hypervisor/capture-choice.ts'
import { captureFix } from './hypervisor/capture-fixes.ts'
import type { Accel } from './hypervisor/command-line.ts'
import { buildNative, type NativeParts, tryUserfaultfd } from './hypervisor/native.ts'
import { keptUnasked, mayTrace, type QemuProgram } from './hypervisor/confinement.ts'
import { ownPrivileges } from './hypervisor/process.ts'
import { installedQemu, NO_SANDBOX, preloaded } from './hypervisor/qemu.ts'
import type { Clock, Finding, Log } from './ports.ts'

const run = promisify(execFile)

interface Patient {
  readonly settings: HypervisorSettings
  readonly peer: string
  /** For sockets of trial VMs. */
  readonly runDir: string
  readonly clock: Clock
  readonly log: Log
  /** Once it is known that QEMU is one. */
  program?: QemuProgram
  accel?: Accel
  /** Once they are known to be there. */
  native?: NativeParts
}

type Check = (patient: Patient) => Promise<Finding>

const PROGRAM_MS = 10_000
/** Below this there is hardly room for a VM. A guess. */
const LITTLE_ROOM_MIB = 256
/** A peer that runs here answers within this; a guess. */
const ASK_MS = 3_000

/** Programs that a peer starts, and the Debian package that has each. */
const programs = [{ name: 'setpriv', debian: 'util-linux', without: 'QEMU is not started' }] as const

const quiet: Log = { debug() {}, info() {}, warn() {}, error() {} }

/** All findings. `config` undefined: of the default settings. `trying` hears of each check as it begins. */
export async function examine(config: Config | undefined, trying: Trying): Promise<readonly Finding[]> {
  const runDir = await mkdtemp(join(tmpdir(), 'dd-'))
  const settings = config?.hypervisor ?? configSchema.shape.hypervisor.parse({})
  const patient: Patient = { settings, peer: 'doctor', runDir, clock: systemClock, log: quiet }
  try {
    const findings: Finding[] = []
    for (const [name, check] of checks) findings.push(await trying(name, check(patient)))
    const seen = config && (await whatPeerSees(config))
    const dataDir = config?.peer.dataDir
    const peer = dataDir === undefined ? undefined : { dataDir, using: processUsing(dataDir) }
    const others = [...hostChecks(patient, seen, peer), ...(config === undefined ? [] : peerChecks(config, seen))]
    for (const [name, check] of others) findings.push(await trying(name, check()))
    return findings
  } finally {
    await rm(runDir, { recursive: true, force: true })
  }
}

const checks: readonly (readonly [name: string, check: Check])[] = [
  ['each program', checkPrograms],
  ['the helpers in C', checkHelpers],
  ['the erasure code', checkErasure],
  ['QEMU', checkQemu],
  ['what QEMU gives up', async ({ settings, program }) => checkPrivileges(settings, program?.preload !== undefined)],
  ['the accelerator', checkAccel],
  ['capture of RAM', checkCapture],
  ['room for RAM', checkRoom]
]

async function checkPrograms(): Promise<Finding> {
  const missing: (typeof programs)[number][] = []
  for (const program of programs) {
    await run(program.name, ['--version'], { timeout: PROGRAM_MS }).catch(() => missing.push(program))
  }
  const check = 'programs'
  if (missing.length === 0) return { check, state: 'good', says: programs.map(({ name }) => name).join(', ') }
  return {
    check,
    state: 'broken',
    says: missing.map(({ name, without }) => `no ${name}: ${without}`).join('; '),
    fix: `on Debian: apt-get install ${missing.map(({ debian }) => debian).join(' ')}`
  }
}

/** In C: a compiler is needed only where nobody has made them before, as in the container's image. */
async function checkHelpers(patient: Patient): Promise<Finding> {
  const check = 'helpers'
  try {
    const native = (patient.native = await buildNative({ own: join(patient.runDir, 'native') }))
    return { check, state: 'good', says: `${basename(native.tracker)} and ${basename(native.handoff)} are there` }
  } catch (error) {
    const fix = 'on Debian: apt-get install gcc libc6-dev'
    return {
      check,
      state: 'worse',
      says: `written pages cannot be tracked, and a QEMU is less confined: ${messageOf(error)}`,
      fix
    }
  }
}

async function trialOf({ native }: Patient): Promise<UserfaultfdTrial | undefined> {
  if (native === undefined) return undefined
  const why = await tryUserfaultfd(native)
  return why === undefined ? { works: true } : { works: false, why }
}

/** Its addon is compiled when packages are installed. */
async function checkErasure(): Promise<Finding> {
  const check = 'erasure code'
  try {
    const { createCodec } = await import('./erasure/codec.ts')
    createCodec()
    return { check, state: 'good', says: 'its addon loads' }
  } catch (error) {
    return { check, state: 'broken', says: messageOf(error), fix: 'npm ci, with python3, make and g++ installed' }
  }
}

const QEMU_FIX =
  'install QEMU 7.2 or later (on Debian: apt-get install qemu-system-x86), or set hypervisor.qemu to one that works'

async function checkQemu(patient: Patient): Promise<Finding> {
  const check = 'QEMU'
  try {
    const { text, program } = await installedQemu(patient.settings)
    patient.program = { ...program, preload: await preloaded(program.path, join(patient.runDir, 'native')) }
    const says = `${text} (${program.path})`
    return program.sandbox ? { check, state: 'good', says } : { check, state: 'worse', says, fix: NO_SANDBOX }
  } catch (error) {
    return { check, state: 'broken', says: messageOf(error), fix: QEMU_FIX }
  }
}

/** A guest that breaks out of its QEMU has what that has. */
export function checkPrivileges(
  { confined = true }: Pick<HypervisorSettings, 'confined'>,
  preloaded: boolean,
  own = ownPrivileges()
): Finding {
  const check = 'privileges'
  if (!confined) return { check, state: 'good', says: 'QEMU gives up none, as hypervisor.confined is false' }
  const [traces, kept] = [mayTrace(own, preloaded), keptUnasked(own, preloaded)]
  if (!traces && kept === 0) return { check, state: 'good', says: 'QEMU keeps none that it does not need' }
  const found = [
    traces && {
      says: 'QEMU keeps CAP_SYS_PTRACE: a guest that breaks out of it may write the memory of every process here',
      fix: TRACING_FIX
    },
    kept > 0 && {
      says: `QEMU keeps ${kept} of root's capabilities that it does not need: a peer without CAP_SETPCAP cannot take them away`,
      fix: 'give the container CAP_SETPCAP (cap_add: [SETPCAP]), which QEMU does not keep, or run the peer as a user other than root'
    }
  ].filter(each => each !== false)
  const all = (name: 'says' | 'fix'): string => found.map(each => each[name]).join('; ')
  return { check, state: 'worse', says: all('says'), fix: all('fix') }
}

const TRACING_FIX =
  'sysctl vm.unprivileged_userfaultfd=1 (and in /etc/sysctl.d, for the next boot); or, from Linux 6.1 on, let the peer open /dev/userfaultfd (a container: --device /dev/userfaultfd), with the helpers in C and a QEMU that is not linked statically'

const KVM_FIX =
  'on a host without nested virtualization nothing; else load kvm_intel or kvm_amd, and let the user open /dev/kvm'
/** Of what builds on what was tried before. */
const MEND_ABOVE = 'mend what is not good above, then run doctor again'

async function checkAccel(patient: Patient): Promise<Finding> {
  const check = 'accelerator'
  try {
    const { accel, why } = await chooseAccel(patient)
    patient.accel = accel
    if (accel === 'kvm') return { check, state: 'good', says: 'kvm: a trial VM ran' }
    if (patient.settings.accel === 'tcg') return { check, state: 'good', says: `tcg, as ${why} says` }
    return { check, state: 'worse', says: `tcg, many times slower than kvm: ${why}`, fix: KVM_FIX }
  } catch (error) {
    const fix = hasCode(error, 'HYPERVISOR_KVM') ? `set hypervisor.accel to "auto"; ${KVM_FIX}` : MEND_ABOVE
    return { check, state: 'broken', says: messageOf(error), fix }
  }
}

async function checkCapture(patient: Patient): Promise<Finding> {
  const check = 'capture'
  const { accel, settings } = patient
  if (accel === undefined) return { check, state: 'broken', says: 'not tried: no VM runs here', fix: MEND_ABOVE }
  const fromMs = patient.clock.now()
  try {
    const { why } = await chooseCapture({ ...patient, accel })
    const ms = Math.round(patient.clock.now() - fromMs)
    if (why === undefined) {
      return { check, state: 'good', says: `dirty: images of a trial VM were its RAM, byte for byte (${ms} ms)` }
    }
    const asked = settings.capture === 'portable'
    if (asked) return { check, state: 'good', says: `portable, as ${why} says` }
    return { check, state: 'worse', says: `portable, with longer pauses: ${why}`, fix: captureFix(why) }
  } catch (error) {
    const says = messageOf(error)
    return { check, state: 'broken', says, fix: captureFix(says) }
  }
}

async function checkRoom({ settings: { ramDir, capture } }: Patient): Promise<Finding> {
  const check = 'room for RAM'
  if (capture === 'portable') return { check, state: 'good', says: 'RAM is no file: capture is "portable"' }
  try {
    const free = await freeMiB(ramDir)
    const says = `${free} MiB in ${ramDir} (hypervisor.ramDir)`
    if (free >= LITTLE_ROOM_MIB) return { check, state: 'good', says }
    const fix = `enlarge it: mount -o remount,size=90% ${ramDir}; VMs that do not fit are cut by background snapshots`
    return { check, state: 'worse', says, fix }
  } catch (error) {
    return { check, state: 'worse', says: messageOf(error), fix: 'set hypervisor.ramDir to a tmpfs' }
  }
}

type HostCheck = readonly [name: string, check: () => Promise<Finding>]

/** What needs no QEMU. */
const hostChecks = (patient: Patient, seen: Seen | undefined, peer: AskedPeer | undefined): HostCheck[] => [
  ['the user of the peer', () => checkUser(peer)],
  ['userfaultfd', async () => checkUserfaultfd(await trialOf(patient))],
  ['memory', () => checkMemory(vmMemoryMiB(patient.settings), seen?.ram)],
  ['memory for huge pages', () => checkHugePages()],
  ['open files', () => checkFiles()]
]

/** What has a data folder and ports. */
function peerChecks(config: Config, seen: Seen | undefined): HostCheck[] {
  const { peer, members } = config
  const others = members.flatMap(({ name, address }) => {
    const where = tcpOf(address)
    return name === peer.name || where === undefined ? [] : [{ name, ...where }]
  })
  return [
    ['the disk', () => checkFsync(peer.dataDir)],
    ...portChecks(config, seen),
    ['reach of members', () => checkReach(seen?.addresses ?? others)],
    ['the clock', () => checkClock(seen?.clocks)]
  ]
}

function portChecks({ api, peer }: Config, seen: Seen | undefined): HostCheck[] {
  const listen = tcpOf(peer.listen)
  const served = listeningOf(api.listen, peer.listen)
  const ports: HostCheck[] = []
  if (listen !== undefined) {
    const wanted = { check: 'port', ...listen, setting: 'peer.listen', need: true } as const
    ports.push(['its port', () => checkPort(wanted, seen && true)])
  }
  if (served !== undefined) {
    const { host, port, named } = served
    const wanted = { check: 'port of the API', host, port, setting: 'api.listen', need: named } as const
    ports.push(['the port of the API', () => checkPort(wanted, seen && (named || seen.servesTcp))])
  }
  return ports
}

type Seen = NonNullable<Awaited<ReturnType<typeof whatPeerSees>>>

/** Of a peer of this config that runs; undefined: none answers. */
async function whatPeerSees({ peer }: Config) {
  const late = new Promise<undefined>(resolve => setTimeout(resolve, ASK_MS, undefined).unref())
  const client = new ApiClient(`${runDirOf(peer)}/api.sock`)
  const asked = Promise.all([client.overview(), servedAt(client).catch(() => undefined)]).catch(() => undefined)
  const answered = await Promise.race([asked, late])
  if (answered === undefined) return undefined
  const [{ by, members, vms }, served] = answered
  const others = members.filter(({ self }) => !self)
  const ramOf = (inFiles: boolean): number =>
    vms.reduce((sum, { owner, state, memoryMiB, capture }) => {
      const counts = owner === by && state === 'running' && (capture === 'dirty') === inFiles
      return counts ? sum + memoryMiB : sum
    }, 0)
  return {
    /** Unless it has said that it could not. */
    servesTcp: served !== null,
    ram: { filesMiB: ramOf(true), ownMiB: ramOf(false) },
    clocks: others.flatMap(({ name, report }) => (report === null ? [] : [{ name, aheadMs: report.aheadMs }])),
    addresses: others.flatMap(({ name, address }) => {
      const where = tcpOf(address)
      return where === undefined ? [] : [{ name, ...where }]
    })
  }
}
