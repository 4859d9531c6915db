/** Commands of this machine, and the mirror that its apt uses. */
import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { DiapauseError, UsageError, messageOf } from '../../node/errors.ts'

const execute = promisify(execFile)

export type Run = (
  command: string,
  args: readonly string[],
  options?: { readonly env?: NodeJS.ProcessEnv; readonly cwd?: string }
) => Promise<string>

/** A command's output; what it printed is in the error where it fails. */
export const run: Run = async (command, args, options = {}) => {
  try {
    const { stdout } = await execute(command, args, { maxBuffer: 1 << 26, ...options })
    return stdout
  } catch (cause) {
    const { stdout = '', stderr = '' } = cause as { stdout?: string; stderr?: string }
    const tail = `${stdout}\n${stderr}`.trim().split('\n').slice(-40).join('\n')
    const what = `${command} ${args.join(' ')}`
    throw new DiapauseError('DOCKER_COMMAND', `failed: ${what}\n${tail === '' ? messageOf(cause) : tail}`, { cause })
  }
}

/** The one that this machine's apt uses. */
export function debianMirror(): string {
  for (const file of ['/etc/apt/sources.list.d/debian.sources', '/etc/apt/sources.list']) {
    if (!existsSync(file)) continue
    const uri = /^(?:URIs:|deb(?: \[[^\]]*\])?)\s+(http\S+)/m.exec(readFileSync(file, 'utf8'))?.[1]
    if (uri !== undefined) return uri
  }
  throw new UsageError(
    'DOCKER_MIRROR',
    'apt names no Debian mirror here (/etc/apt/sources.list), and images are made of one'
  )
}
