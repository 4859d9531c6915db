/** Speaks with a VM of a drill, for a shell: a line is typed on its console, and one that fits is waited for. */
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { DiapauseError, messageOf, UsageError } from '../errors.ts'

export interface Saying {
  readonly vm: string
  /** Empty: nothing is typed. */
  readonly text: string
  /** A regular expression for a line. Absent: nothing is waited for. */
  readonly pattern?: string
  readonly withinMs: number
}

/** Lines that are told where none of them fits. */
const HEARD = 5
/** A line that does not end is cut off here. */
const LINE_CHARACTERS = 65_536

/** The line that fits. UsageErrors DRILL_MISSING, VM_UNKNOWN, CLI_PATTERN; DRILL_NO_ANSWER. */
export async function say(folder: string, { vm, text, pattern, withinMs }: Saying): Promise<string | undefined> {
  const path = consoleOf(folder, vm)
  const wanted = pattern === undefined ? undefined : patternOf(pattern)
  return await new Promise((resolve, reject) => {
    const heard: string[] = []
    let rest = ''
    const end = (settle: () => void): void => {
      clearTimeout(late)
      socket.destroy()
      settle()
    }
    const fail = (why: string): void => {
      const said = heard.length === 0 ? 'it said nothing' : `it said:\n${heard.slice(-HEARD).join('\n')}`
      end(() => reject(new DiapauseError('DRILL_NO_ANSWER', `VM ${vm} ${why}; ${said}`)))
    }
    const late = setTimeout(() => fail(`did not say ${pattern} within ${withinMs / 1_000} s`), withinMs)
    const socket = connect(path, () => {
      if (wanted === undefined) socket.end(text === '' ? '' : `${text}\n`, () => end(() => resolve(undefined)))
      else if (text !== '') socket.write(`${text}\n`)
    })
    socket.setEncoding('utf8').on('data', (news: string) => {
      const lines = (rest + news).split(/\r?\n/)
      rest = (lines.pop() ?? '').slice(-LINE_CHARACTERS)
      heard.push(...lines)
      const found = lines.find(line => wanted?.test(line) === true)
      if (found !== undefined) end(() => resolve(found))
    })
    socket.on('error', error => fail(`has no console on ${path} (${error.message})`))
    socket.on('close', () => fail('is gone'))
  })
}

function consoleOf(folder: string, vm: string): string {
  let about: { readonly vms: readonly { readonly id: string; readonly console: string }[] }
  try {
    about = JSON.parse(readFileSync(join(folder, 'drill.json'), 'utf8')) as typeof about
  } catch (cause) {
    throw new UsageError('DRILL_MISSING', `there is no drill in ${folder} (any more): ${messageOf(cause)}`, { cause })
  }
  const found = about.vms.find(({ id }) => id === vm)
  if (found !== undefined) return found.console
  throw new UsageError('VM_UNKNOWN', `the drill has no VM ${vm}; it has ${about.vms.map(({ id }) => id).join(', ')}`)
}

function patternOf(text: string): RegExp {
  try {
    return new RegExp(text)
  } catch (cause) {
    throw new UsageError('CLI_PATTERN', `${JSON.stringify(text)} is no regular expression: ${messageOf(cause)}`, {
      cause
    })
  }
}
