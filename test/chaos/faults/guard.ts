/**
 * Faults that outlive processes: a frozen file system, a limit of a control group. A shell makes such a fault, waits for
 * the end of its standard input, which comes when this process ends, whatever ended it, and undoes the fault.
 */
import { spawn } from 'node:child_process'
import { once as event } from 'node:events'
import { DiapauseError } from '../../../node/errors.ts'
import { type Heal, once } from '../fault.ts'

export interface GuardedFault {
  /** Shell. It ends at the first command that fails, and what `undo` says is done. */
  readonly act: string
  /** Shell: runs once, also where `act` failed half way. */
  readonly undo: string
  /** $1, $2, … of both. */
  readonly args: readonly string[]
}

/** Resolves when the fault is there. DiapauseError CHAOS_FAULT with what the shell said; then it is undone. */
export async function guarded({ act, undo, args }: GuardedFault): Promise<Heal> {
  // Signals of a terminal go to everybody in its session: this one has its own, and ends with its standard input alone.
  const script = `cd /\ntrap '' INT TERM HUP\nundo() {\n${undo}\n}\ntrap 'undo "$@"' EXIT\nset -e\n${act}\nset +e\necho ready\ncat > /dev/null`
  const child = spawn('sh', ['-c', script, 'chaos-guard', ...args], { stdio: 'pipe', detached: true })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
  child.stdin.on('error', () => {}) // it ended already; the exit says so
  const closed = event(child, 'close')
  const ready = await Promise.race([event(child.stdout, 'data').then(() => true), closed.then(() => false)])
  if (!ready) throw new DiapauseError('CHAOS_FAULT', `the fault could not be made (${said.trim()}): ${act.trim()}`)
  return once(async () => {
    child.stdin.end()
    await closed
  })
}
