/**
 * Tells by a command of the operator's: JSON on its standard input, its text in DIAPAUSE_TEXT. Exit code 0 is taken as told. It dies
 * with this process, of which it has neither environment nor privileges (`operators-command.ts`).
 */
import { spawn } from 'node:child_process'
import type { NotificationTarget } from '../../config/notices.ts'
import { operatorsCommand, operatorsEnvironment } from '../operators-command.ts'
import type { NotificationBody } from '../ports.ts'
import { failed } from './errors.ts'

/** What is kept of what it says on standard error, the last: a line. For this peer's log alone, as it may hold a credential. */
const SAID_CHARACTERS = 300

/** A variable may have 128 KiB (execve: MAX_ARG_STRLEN), and a character takes up to three bytes each as it is counted here. */
const MAX_TEXT_CHARACTERS = 30_000

/** No program can be started with more, nor with a NUL. The whole text is in the JSON. */
export const commandEnvironment = (target: string, text: string): Record<string, string> =>
  operatorsEnvironment({
    DIAPAUSE_TARGET: target,
    DIAPAUSE_TEXT: text.replaceAll('\0', '').slice(0, MAX_TEXT_CHARACTERS)
  })

export async function runCommand(
  { name, command }: Pick<NotificationTarget, 'name'> & { readonly command: string },
  body: NotificationBody,
  signal: AbortSignal
): Promise<void> {
  const args = operatorsCommand('sh', '-c', command)
  const env = commandEnvironment(name, body.text)
  const child = spawn('setpriv', args, { cwd: '/', env, detached: true, stdio: ['pipe', 'ignore', 'pipe'] })
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', error => reject(failed(name, `its command cannot be started: ${error.message}`)))
    child.once('exit', resolve)
  })
  // Where no descriptor is free for its pipes there are none, and the error follows.
  const { stdin, stderr }: Partial<typeof child> = child
  stdin?.on('error', () => {}) // it need not read
  stdin?.end(JSON.stringify(body))
  let said = ''
  stderr?.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-SAID_CHARACTERS)
  })
  const end = (): void => endGroup(child.pid)
  signal.addEventListener('abort', end, { once: true })
  if (signal.aborted) end()
  try {
    const code = await ended
    if (code === 0) return
    const why = signal.aborted ? 'its command took too long' : commandEnded(code)
    throw failed(name, why, said.trim() === '' ? {} : { said: said.trim() })
  } finally {
    signal.removeEventListener('abort', end)
    end()
    stderr?.destroy()
  }
}

const commandEnded = (code: number | null): string =>
  `its command ended with ${code === null ? 'a signal' : `status ${code}`}`

/** The command, and what it has left behind. */
function endGroup(pid: number | undefined): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {} // nobody is left
}
