/**
 * The log of a peer: a JSON object a line, on standard output, with the same fields everywhere.
 *
 * | field | what it is |
 * |---|---|
 * | `time` | ISO 8601, UTC, milliseconds |
 * | `level` | `debug`, `info`, `warn` (it goes on, somebody may want to look), `error` (somebody has to) |
 * | `name` | the peer's |
 * | `msg` | for people; it may change |
 * | `kind` | of what `diapause events` tells, too: stable |
 * | `group`, `vm`, `generation`, `epoch`, `peer`, `from`, `target` | what it is about |
 * | `error`, `code` | why: a text, and the stable code of an error that has one |
 *
 * Other fields are facts for whoever reads the code. Times and sizes end in their unit.
 */
import { pino } from 'pino'
import type { Log } from '../ports.ts'

export type LogLevel = 'debug' | 'info' | 'warn' | 'error'

export interface PeerLog {
  readonly log: Log
  readonly logging: {
    /** `configured`: what the config says. */
    status(): { readonly level: LogLevel; readonly configured: LogLevel }
    /** From the next line on. Undefined: what the config says. */
    setLevel(level: LogLevel | undefined): { readonly level: LogLevel; readonly configured: LogLevel }
  }
  /** To `debug`, or back to what the config says; which it is now. */
  toggleDebug(): LogLevel
}

/** What nobody may read in a log, should a mistake put it there. */
const SECRETS = ['authorization', 'token', 'secret', 'secretAccessKey', 'password']

/** `write` gets each line, and must not throw (`log-output.ts`); absent: standard output, which ends the process where it fails. */
export function openLog({ level, name }: { level: LogLevel; name: string }, write?: (line: string) => void): PeerLog {
  const options = {
    level,
    base: { name },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    redact: [...SECRETS, ...SECRETS.map(key => `*.${key}`)]
  }
  const log = write === undefined ? pino(options) : pino(options, { write })
  let now = level
  const status = () => ({ level: now, configured: level })
  const setLevel = (next = level) => {
    // Whoever reads the log hears of it at whichever level it was or is: at info where either tells that.
    const before = now
    const tell = () => log.info({ kind: 'log.level', logLevel: next, before }, `the log is at ${next} now`)
    if (quietness(next) > quietness(before)) tell()
    log.level = now = next
    if (quietness(next) <= quietness(before)) tell()
    return status()
  }
  return {
    log,
    logging: { status, setLevel },
    toggleDebug: () => setLevel(now === 'debug' ? level : 'debug').level
  }
}

const quietness = (level: LogLevel): number => ['debug', 'info', 'warn', 'error'].indexOf(level)
