/**
 * The two programs in C of `native/`, compiled by this host's compiler when they are first needed. They stay in
 * `.build/native/HASH` at the top of the tree, where HASH is of their sources, so a changed source is compiled anew. A
 * build is made in a folder of its own and renamed into place: of two builders the later finds the name taken.
 *
 * A peer as a user of its own may not write where root has installed it. What nobody has built there it builds for itself, in
 * a folder that only it can write.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'

const run = promisify(execFile)
const sources = join(import.meta.dirname, 'native')
const COMPILE_MS = 60_000
/** It waits 5 s for a fault. */
const TRIAL_MS = 10_000

/** Paths of the built programs. */
export interface NativeParts {
  readonly tracker: string
  readonly handoff: string
}

export interface BuildOptions {
  /** For all users: at the top of the tree unless a test says otherwise. */
  readonly cache?: string
  /** Of this process alone: for a user who may not write in `cache`. */
  readonly own?: string | undefined
}

/** HYPERVISOR_NATIVE where they cannot be built; the message says what to install. */
export async function buildNative(options: BuildOptions = {}): Promise<NativeParts> {
  const { cache = join(import.meta.dirname, '../../.build/native'), own } = options
  const hash = createHash('sha256')
  for (const name of ['tracker.c', 'handoff.c']) hash.update(await readFile(join(sources, name)))
  const name = `${process.arch}-${hash.digest('hex').slice(0, 16)}`
  const shared = join(cache, name)
  if (existsSync(shared)) return partsIn(shared)
  try {
    return await compile(cache, name)
  } catch (error) {
    const { cause } = error as Error
    if (own === undefined || !['EACCES', 'EPERM', 'EROFS'].some(code => hasCode(cause, code))) throw error
    return existsSync(join(own, name)) ? partsIn(join(own, name)) : compile(own, name)
  }
}

const partsIn = (folder: string): NativeParts => ({
  tracker: join(folder, 'tracker'),
  handoff: join(folder, 'handoff.so')
})

/** Under the library, as QEMU is: it has a userfaultfd by the same way. */
export const underHandoff = ({ handoff }: NativeParts): { env: Record<string, string> } => ({
  env: { LD_PRELOAD: handoff }
})

/** Whether processes of this user may do what QEMU does with userfaultfd, by doing it. Resolves with why not, or undefined. */
export async function tryUserfaultfd(native: NativeParts): Promise<string | undefined> {
  try {
    await run(native.tracker, ['faults'], { timeout: TRIAL_MS, ...underHandoff(native) })
    return undefined
  } catch (error) {
    const { stderr = '' } = error as { stderr?: string }
    return stderr.trim() === '' ? messageOf(error) : stderr.trim()
  }
}

async function compile(cache: string, name: string): Promise<NativeParts> {
  const folder = join(cache, name)
  let temporary: string | undefined
  try {
    await mkdir(cache, { recursive: true })
    temporary = await mkdtemp(join(cache, 'building-'))
    const cc = (...args: string[]) => run('cc', ['-O2', '-Wall', ...args], { cwd: sources, timeout: COMPILE_MS })
    await Promise.all([
      cc('-pthread', 'tracker.c', '-o', join(temporary, 'tracker')),
      cc('-shared', '-fPIC', 'handoff.c', '-o', join(temporary, 'handoff.so'), '-ldl')
    ])
    // There is no secret in them, and a peer may run as another user than who compiled them.
    for (const part of ['tracker', 'handoff.so', '']) await chmod(join(temporary, part), 0o755)
    await rename(temporary, folder)
    return partsIn(folder)
  } catch (cause) {
    if (hasCode(cause, 'ENOTEMPTY') || hasCode(cause, 'EEXIST')) return partsIn(folder)
    const missing = hasCode(cause, 'ENOENT') && existsSync(sources)
    throw new DiapauseError(
      'HYPERVISOR_NATIVE',
      missing
        ? 'there is no C compiler (cc); on Debian: apt-get install gcc libc6-dev'
        : `the helpers in C cannot be compiled: ${messageOf(cause)}`,
      { cause }
    )
  } finally {
    if (temporary !== undefined) await rm(temporary, { recursive: true, force: true })
  }
}
