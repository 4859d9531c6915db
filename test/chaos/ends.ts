/**
 * A peer that ends although nobody has ended it: started again a second later, it would be green with a crash in it. Killed
 * it is from outside; told to stop, by its init. For all else there has to be a fault on its host in the same round under which
 * a peer may end rather than go on with what it cannot trust. Pure.
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

export interface End {
  /** "h1" */
  readonly host: string
  /** "SIGKILL", "exit code 1" */
  readonly how: string
  /** Its init had told it to stop, or killed it. */
  readonly asked: boolean
}

/** `steps`: of the round that it is in. What a heal begins (reading again what was damaged) is over when the round is. */
export function unasked({ host, how, asked }: End, steps: readonly Step[]): string[] {
  if (asked || how === 'SIGKILL') return []
  const why = steps.some(step => `h${step.host + 1}` === host && MAY_END.has(step.fault))
  return why ? [] : [`the peer of ${host} ended by itself: ${how}`]
}
