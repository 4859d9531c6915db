/**
 * A peer's data folder: whose it is, in which format, and that nobody else uses it.
 *
 * The lock is a folder `lock` with one file a claimant, named by boot, process id and the start time of that process. Who
 * wants the data folder first makes its own file, then looks at the others: one whose process still lives wins, one
 * whose process is gone is removed. As everyone claims before looking, two can never both win (both may lose, when they
 * start in the same instant), and as names are never used twice, removing a dead claim cannot remove a living one. A
 * claim ends with its process, `kill -9` included. Processes of other pid namespaces look dead: do not share the folder
 * between containers.
 */
import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import type { PeerId } from '../../protocols/core.ts'
import { UsageError, hasCode, messageOf } from '../errors.ts'
import { makeFolder, readIfThere, writeDurably } from './files.ts'

/** Grows when a peer can no longer read what an older one wrote. */
export const DATA_FORMAT = 1

export interface DataDirOptions {
  readonly dataDir: string
  readonly peerId: PeerId
  readonly cluster: string
}

export interface DataDir {
  readonly path: string
  /** Whether this peer has had a register store; false at the first start of a version that notes it. */
  readonly hadRegisters: boolean
  /** Notes that there is one now. Durable when it resolves, as are the names in the folder. */
  noteRegisters(): Promise<void>
  /** Lets go of the lock. */
  close(): void
}

/**
 * Opens the folder, made at first use. UsageError DATA_DIR_IN_USE, DATA_DIR_VERSION, DATA_DIR_OTHER_PEER,
 * DATA_DIR_OTHER_CLUSTER, DATA_DIR_UNUSABLE (no permission, not a folder, damaged peer.json).
 */
export async function openDataDir(options: DataDirOptions): Promise<DataDir> {
  const path = options.dataDir
  try {
    makeFolder(path)
    const release = claim(path)
    try {
      const { registers } = await checkOwner(options)
      return { path, hadRegisters: registers === true, noteRegisters: () => noteRegisters(options), close: release }
    } catch (error) {
      release()
      throw error
    }
  } catch (cause) {
    if (cause instanceof UsageError) throw cause
    throw new UsageError('DATA_DIR_UNUSABLE', `cannot use the data folder ${path}: ${messageOf(cause)}`, { cause })
  }
}

// ---------------------------------------------------------------------------------------------- whose it is

const peerFileSchema = z.object({
  format: z.number().int(),
  peer: z.string(),
  cluster: z.string(),
  /** There is a register store: one that is gone is not a new peer's. Older versions did not note it. */
  registers: z.boolean().optional()
})
type PeerFile = z.output<typeof peerFileSchema>

const peerFileOf = (dataDir: string): string => join(dataDir, 'peer.json')

async function write(dataDir: string, file: PeerFile): Promise<PeerFile> {
  await writeDurably(peerFileOf(dataDir), `${JSON.stringify(file)}\n`)
  return file
}

async function noteRegisters({ dataDir, peerId, cluster }: DataDirOptions): Promise<void> {
  await write(dataDir, { format: DATA_FORMAT, peer: peerId, cluster, registers: true })
}

async function checkOwner({ dataDir, peerId, cluster }: DataDirOptions): Promise<PeerFile> {
  const file = peerFileOf(dataDir)
  const text = await readIfThere(file)
  if (text === undefined) return await write(dataDir, { format: DATA_FORMAT, peer: peerId, cluster })
  const found = parsePeerFile(text, file)
  if (found.format !== DATA_FORMAT) {
    throw new UsageError(
      'DATA_DIR_VERSION',
      `${dataDir} was written by another version of diapause (data format ${found.format}; this one reads ${DATA_FORMAT}): run that version, or start with an empty folder`,
      { details: { expected: DATA_FORMAT, found: found.format } }
    )
  }
  if (found.peer !== peerId) {
    throw new UsageError(
      'DATA_DIR_OTHER_PEER',
      `${dataDir} belongs to peer ${found.peer}, but this peer is ${peerId}: give it its own peer.dataDir, or put back the identity.key that belongs here`,
      { details: { expected: peerId, found: found.peer } }
    )
  }
  if (found.cluster !== cluster) {
    throw new UsageError(
      'DATA_DIR_OTHER_CLUSTER',
      `${dataDir} belongs to cluster "${found.cluster}", but cluster.name is "${cluster}": give this peer its own peer.dataDir`,
      { details: { expected: cluster, found: found.cluster } }
    )
  }
  return found
}

function parsePeerFile(text: string, file: string): PeerFile {
  try {
    return peerFileSchema.parse(JSON.parse(text))
  } catch (cause) {
    throw new UsageError('DATA_DIR_UNUSABLE', `${file} is damaged: restore it from a backup`, { cause })
  }
}

// ---------------------------------------------------------------------------------------------- that nobody else uses it

function claim(dataDir: string): () => void {
  const folder = join(dataDir, 'lock')
  makeFolder(folder)
  const own = `${thisBoot()}-${process.pid}-${startTimeOf(process.pid)}`
  const file = join(folder, own)
  try {
    writeFileSync(file, '', { flag: 'wx', mode: 0o600 })
  } catch (error) {
    if (hasCode(error, 'EEXIST')) throw inUse(dataDir, process.pid)
    throw error
  }
  const release = (): void => rmSync(file, { force: true })
  for (const other of readdirSync(folder)) {
    if (other === own) continue
    const pid = claimantOf(other)
    if (pid !== undefined) {
      release()
      throw inUse(dataDir, pid)
    }
    rmSync(join(folder, other), { force: true })
  }
  return release
}

/** Who has the folder open now, by its process id. Undefined: nobody; 'unseen': it is not for this user to see. Changes nothing. */
export function processUsing(dataDir: string): number | 'unseen' | undefined {
  try {
    return readdirSync(join(dataDir, 'lock')).flatMap(claim => claimantOf(claim) ?? [])[0]
  } catch (error) {
    return hasCode(error, 'ENOENT') || hasCode(error, 'ENOTDIR') ? undefined : 'unseen'
  }
}

const thisBoot = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').slice(0, 8)

/** The process of a claim; undefined: it is gone. */
function claimantOf(claim: string): number | undefined {
  const [boot, pid, start] = claim.split('-')
  return boot === thisBoot() && start !== undefined && startTimeOf(Number(pid)) === start ? Number(pid) : undefined
}

const inUse = (dataDir: string, pid: number): UsageError =>
  new UsageError('DATA_DIR_IN_USE', `${dataDir} is in use by process ${pid}: stop that peer first`, {
    details: { pid }
  })

/** Field 22 of /proc/PID/stat, in clock ticks since boot; undefined where there is no such process, or a dead one. */
function startTimeOf(pid: number): string | undefined {
  let stat: string
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    return undefined
  }
  // The second field is the program's name in parentheses, which may itself hold spaces and parentheses.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19]
}
