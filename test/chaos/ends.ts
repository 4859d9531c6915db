/**
 * A peer that ends although nobody has ended it: started again a second later, it would be green with a crash in it. Its init has
 * killed it, or told it to stop. Else there has to be a fault on its host in the same round under which a peer may end rather than go
 * on with what it cannot trust; and then it says why, by an error that has a code: one that nobody has thought of has none. A signal
 * but that of a kill is a crash whatever is wrong with its host. Pure.
 */
import type { Step } from './scenario.ts'

/** By faults of what a peer stores on, or of what the kernel gives it: it ends, says why, and is started until it can. */
const MAY_END: ReadonlySet<string> = new Set([
  'full-disk',
  'read-only-disk',
  'failing-disk',
  'hung-disk',
  'failing-fsync',
  'no-descriptors',
  'short-of-memory',
  'register-rot',
  'register-truncation'
])

/** By which the kernel or a fault kills a peer without its init. */
const KILLS: ReadonlySet<string> = new Set(['kill-peer', 'short-of-memory'])

export interface End {
  /** "h1" */
  readonly host: string
  /** "SIGKILL", "exit code 1" */
  readonly how: string
  /** The code of the error that it ended with, as `lastCode` finds it. */
  readonly code: string | undefined
  /** Its init had told it to stop, or killed it. */
  readonly asked: boolean
}

/** `steps`: of the round that it is in. What a heal begins (reading again what was damaged) is over when the round is. */
export function unasked({ host, how, code, asked }: End, steps: readonly Step[]): string[] {
  const had = (faults: ReadonlySet<string>) =>
    steps.some(step => `h${step.host + 1}` === host && faults.has(step.fault))
  if (asked || (how === 'SIGKILL' && had(KILLS))) return []
  if (/^exit code \d+$/.test(how) && had(MAY_END)) {
    return code === undefined ? [`the peer of ${host} ended by an error that it does not know: ${how}`] : []
  }
  return [`the peer of ${host} ended by itself: ${how}`]
}

/**
 * Of a peer's log: lines of JSON, and at the end of a run what Node says of what nobody has caught, or `diapause: what happened [CODE]`
 * with what to do below it (`node/edge/explain.ts`). Lines of JSON may come behind that: they wait for their turn (`log-output.ts`).
 * Undefined where it does not end with such an error.
 */
export function lastCode(log: string): string | undefined {
  const said = log.split('\n').filter(line => line !== '' && !line.startsWith('{') && !line.startsWith('  → '))
  return /^diapause: .*\[([A-Z][A-Z0-9_]*)\]$/.exec(said.at(-1) ?? '')?.[1]
}
