/** Programs that faults are made with. */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { DiapauseError, hasCode, messageOf, UsageError } from '../../../node/errors.ts'

const PACKAGES: Readonly<Record<string, string>> = {
  gcc: 'gcc libc6-dev',
  xfs_io: 'xfsprogs',
  e2fsck: 'e2fsprogs',
  ip: 'iproute2',
  mount: 'mount'
}

/** Where the administrator's are, which is not in everybody's path. */
const path = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`

const execute = promisify(execFile)

/** As a fault's `needs`: these programs are here. UsageError CHAOS_TOOLS with what to install. */
export const needsPrograms =
  (...programs: readonly string[]) =>
  (): void => {
    for (const program of programs)
      if (!path.split(':').some(folder => existsSync(join(folder, program)))) throw missing(program)
  }

function missing(program: string): UsageError {
  const package_ = PACKAGES[program] ?? 'util-linux'
  return new UsageError('CHAOS_TOOLS', `${program} missing: run  sudo apt-get install -y ${package_}`)
}

/** What it said. UsageError CHAOS_TOOLS where there is no such program; else the error of execFile. */
export async function run(program: string, args: readonly string[]): Promise<string> {
  try {
    return (await execute(program, args, { env: { ...process.env, PATH: path } })).stdout
  } catch (error) {
    throw hasCode(error, 'ENOENT') ? missing(program) : error
  }
}

/** The same for words in one list, as `Hosts.on` gives them. */
export const runWords = ([program = '', ...args]: readonly string[]): Promise<string> => run(program, args)

/** Makes a program or library of C. DiapauseError CHAOS_COMPILE, UsageError CHAOS_TOOLS. */
export async function compile(source: string, target: string, ...options: readonly string[]): Promise<void> {
  try {
    await run('gcc', ['-O2', '-Wall', '-Werror', ...options, '-o', target, source, '-ldl'])
  } catch (error) {
    if (error instanceof UsageError) throw error
    throw new DiapauseError('CHAOS_COMPILE', `${source} could not be compiled: ${messageOf(error)}`, { cause: error })
  }
}
