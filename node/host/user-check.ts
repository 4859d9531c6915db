/**
 * What `diapause doctor` says of the user of the peer: a guest that breaks out of its QEMU has that user's files and services
 * (`node/hypervisor/confinement.ts`). Changes nothing.
 */
import { execFile } from 'node:child_process'
import { access, constants, readFile, stat } from 'node:fs/promises'
import { promisify } from 'node:util'
import { hasCode } from '../errors.ts'
import type { Finding } from '../ports.ts'
import type { processUsing } from './data-dir.ts'

const run = promisify(execFile)
const ASK_MS = 5_000

/** Programs that root runs: who writes there is root. */
const FILES_OF_ROOT = ['/etc', '/usr', '/var', '/root'] as const
/** Services of root that do what anybody asks who may write to their socket. */
const SERVICES_FOR_ALL = ['/run/docker.sock'] as const
/**
 * Services that do what root asks, whatever capabilities it has (systemd, by sd_bus_query_sender_privilege(3)); others they ask for more.
 */
const SERVICES_OF_ROOT = ['/run/systemd/private', '/run/dbus/system_bus_socket'] as const

/** The peer of a config: its data folder, and who has that open. */
export interface AskedPeer {
  readonly dataDir: string
  readonly using: ReturnType<typeof processUsing>
}

export interface User {
  readonly uid: number
  /** All of them. */
  readonly groups: readonly number[]
}

/** How this host is looked at. Undefined is what this user does not see. */
export interface Sight {
  text(path: string): Promise<string | undefined>
  /** Null: it is not there. */
  ownerOf(path: string): Promise<number | null | undefined>
  groupsOf(uid: number): Promise<readonly number[] | undefined>
  /** Whether that user could write there without any capability. */
  mayUse(path: string, user: User): Promise<boolean | undefined>
}

const CHECK = 'user'
const AS_ROOT = 'run doctor as root'

/** `peer` undefined: no config names one. */
export async function checkUser(peer: AskedPeer | undefined, sight: Sight = hostSight): Promise<Finding> {
  const unknown = (says: string, fix = AS_ROOT): Finding => ({ check: CHECK, state: 'unknown', says, fix })
  if (peer?.using === 'unseen') {
    return unknown(`${peer.dataDir} is closed to this user, who does not see whether a peer runs there, and by whom`)
  }
  const found = await userOf(peer, sight)
  if (found === undefined) return unknown('nothing here says who runs the peer, and in which groups')
  const { user, does, root } = found
  const runs = `${user.uid === 0 ? 'root' : `user ${user.uid}`} ${does}`
  const guest = `${runs}: a guest that breaks out of its QEMU is`
  const paths = [...FILES_OF_ROOT, ...SERVICES_FOR_ALL, ...(user.uid === 0 ? SERVICES_OF_ROOT : [])]
  const used = await Promise.all(paths.map(async path => ({ path, may: await sight.mayUse(`${root}${path}`, user) })))
  const open = used.flatMap(({ path, may }) => (may === true ? [path] : []))
  const unseen = used.some(({ may }) => may === undefined)
  // One that is open is enough for a user who is not root; of root all are named.
  if (unseen && (user.uid === 0 || open.length === 0)) {
    return unknown(`${runs}, and this user does not see what is open to it`)
  }
  if (open.length > 0) return worse(guest, user, open.join(', '))
  if (user.uid === 0) {
    const says = `${guest} root, but ${FILES_OF_ROOT.join(', ')} and root's services are closed to it`
    return { check: CHECK, state: 'good', says }
  }
  // Anybody may ask, whoever runs the peer.
  if (peer === undefined) return unknown(`user ${user.uid} runs doctor, and no config says of which peer`, WITH_CONFIG)
  return { check: CHECK, state: 'good', says: `${guest} that user, and not root` }
}

const WITH_CONFIG = "run doctor with --config FILE, the peer's"

function worse(guest: string, { uid }: User, open: string): Finding {
  if (uid === 0) {
    return {
      check: CHECK,
      state: 'worse',
      says: `${guest} root without capabilities, and gets all of them by what is open to it: ${open}`,
      fix: "let the peer run as a user of its own: config/systemd/own-user.conf (README: As a service); in a container that root is the container's"
    }
  }
  return {
    check: CHECK,
    state: 'worse',
    says: `${guest} that user, and gets to be root by what is open to it: ${open}`,
    fix: `close that to user ${uid}: take it out of the group that has it (docker: gpasswd -d USER docker), then start the peer again`
  }
}

interface Found {
  readonly user: User
  /** Why it is the user of the peer: goes on behind its name. */
  readonly does: string
  /** Before paths, as the process sees them. */
  readonly root: string
}

/** Of the process that runs; else whose the data folder is; else who asks. */
async function userOf(peer: AskedPeer | undefined, sight: Sight): Promise<Found | undefined> {
  // Which may be shown less than others are (ProtectSystem= of its unit).
  if (typeof peer?.using === 'number') return await runningAs(`/proc/${peer.using}`, 'runs the peer', sight)
  const self = await runningAs('/proc/self', 'runs doctor, and so the peer', sight)
  if (peer === undefined) return self
  const uid = await sight.ownerOf(peer.dataDir)
  if (uid === null) return self
  if (uid === undefined) return undefined
  const groups = uid === self?.user.uid ? self.user.groups : await sight.groupsOf(uid)
  const does = 'has the data folder, and so runs the peer'
  return groups && { user: { uid, groups }, does, root: '/proc/self/root' }
}

async function runningAs(folder: string, does: string, sight: Sight): Promise<Found | undefined> {
  const status = (await sight.text(`${folder}/status`)) ?? ''
  const uid = /^Uid:\s+\d+\s+(\d+)/m.exec(status)?.[1]
  if (uid === undefined) return undefined
  const own = /^Gid:\s+\d+\s+(\d+)/m.exec(status)?.[1] ?? ''
  const others = /^Groups:([\d \t]*)$/m.exec(status)?.[1] ?? ''
  const groups = `${own} ${others}`.match(/\d+/g) ?? []
  return { user: { uid: Number(uid), groups: groups.map(Number) }, does, root: `${folder}/root` }
}

const isMissing = (error: unknown): boolean => hasCode(error, 'ENOENT') || hasCode(error, 'ENOTDIR')

const hostSight: Sight = {
  text: path => readFile(path, 'utf8').catch(() => undefined),
  ownerOf: path =>
    stat(path).then(
      ({ uid }) => uid,
      error => (isMissing(error) ? null : undefined)
    ),
  groupsOf: uid =>
    run('id', ['-G', String(uid)], { timeout: ASK_MS }).then(
      ({ stdout }) => stdout.trim().split(' ').map(Number),
      () => undefined
    ),
  mayUse
}

export async function mayUse(path: string, { uid, groups }: User): Promise<boolean | undefined> {
  try {
    const file = await stat(path)
    const bits = 0o002 | (file.uid === uid ? 0o200 : 0) | (groups.includes(file.gid) ? 0o020 : 0)
    const granted = (file.mode & bits) !== 0
    if (granted) await access(path, constants.W_OK)
    return granted
  } catch (error) {
    return hasCode(error, 'EROFS') || isMissing(error) ? false : undefined
  }
}
