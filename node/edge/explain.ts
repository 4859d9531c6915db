/**
 * How a command says that it failed: a sentence for people, or with `--json` one object on one line for programs. Both go to
 * standard error, since standard output may have a result as well: `verify` prints its report and fails.
 */
import { CommanderError } from 'commander'
import { DiapauseError, hasCode, messageOf, UsageError } from '../errors.ts'
import { adviceBeside, adviceOn } from './advice.ts'

export interface ToldError {
  /** Stable. */
  readonly code: string
  /** For people; it may change. */
  readonly message: string
  /** What to do about it. */
  readonly todo: string
  /** What lay beneath, where that is known. */
  readonly cause?: string
  readonly details?: Readonly<Record<string, unknown>>
  readonly exitCode: number
}

/** Undefined: it is no failure (`--help`, `--version`). */
export function toldError(error: unknown): ToldError | undefined {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return undefined
    const message =
      error.code === 'commander.help' ? 'a command is missing' : inOurWords(error.message).replace(/^error: /, '')
    return { code: 'CLI_USAGE', message, todo: adviceOn('CLI_USAGE', true), exitCode: 2 }
  }
  if (isDiskFault(error))
    return { code: 'HOST_DISK', message: messageOf(error), todo: adviceOn('HOST_DISK', false), exitCode: 1 }
  if (!(error instanceof DiapauseError)) {
    const details = error instanceof Error && error.stack !== undefined ? { details: { stack: error.stack } } : {}
    return { code: 'INTERNAL', message: messageOf(error), todo: adviceOn('INTERNAL', false), ...details, exitCode: 1 }
  }
  const { code, message, details, cause } = error
  const usage = error instanceof UsageError
  return {
    code,
    message,
    todo: adviceOn(code, usage),
    ...(cause !== undefined && { cause: messageOf(cause) }),
    ...(Object.keys(details).length > 0 && { details }),
    exitCode: usage ? 2 : 1
  }
}

/** What a disk does to whoever reads or writes: no mistake of ours, and nobody to report it to. */
const DISK_FAULTS = ['EIO', 'EROFS', 'ENOSPC', 'EDQUOT']

const isDiskFault = (error: unknown): boolean => DISK_FAULTS.some(code => hasCode(error, code))

/** What the parser of the command line says in its own terms. */
export const inOurWords = (text: string): string =>
  text.replace(/command-argument value '(.*?)' is invalid for argument '(.*?)'\./, "'$1' cannot be the $2.")

/** What a person reads. Undefined where commander has printed its own. */
export const errorText = (error: unknown): string | undefined =>
  error instanceof CommanderError ? undefined : sentenceOf(error)

/** What happened and, on a second line where that does not say it, what to do. */
export function sentenceOf(error: unknown): string {
  if (error instanceof DiapauseError) return withAdvice(`diapause: ${error.message} [${error.code}]`, error.code)
  if (isDiskFault(error)) return withAdvice(`diapause: ${messageOf(error)} [HOST_DISK]`, 'HOST_DISK')
  const text = error instanceof Error && error.stack !== undefined ? error.stack : messageOf(error)
  return withAdvice(`diapause: ${text}`, 'INTERNAL')
}

function withAdvice(text: string, code: string): string {
  const todo = adviceBeside(code)
  return todo === undefined ? text : `${text}\n  → ${todo}`
}

/** Programs that are started have a `--json` of their own. */
const OTHERS = ['demo', 'bench']

/** Whether a command line asks for JSON, also one that is wrong elsewhere. */
export function asksForJson(args: readonly string[]): boolean {
  const end = args.indexOf('--')
  return !OTHERS.includes(args[0] ?? '') && (end < 0 ? args : args.slice(0, end)).includes('--json')
}
