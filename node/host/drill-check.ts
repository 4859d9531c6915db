/**
 * A drill's check: a command of the operator's with all that it starts. It dies with this process (`operators-command.ts`), and
 * all of it has the drill's folder in its environment, by which whatever it has left running is found and killed.
 */
import { spawn } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { DiapauseError } from '../errors.ts'
import { operatorsCommand, operatorsEnvironment } from '../operators-command.ts'
import type { CheckOptions, CheckOutcome } from '../ports.ts'

/** Lines that are kept of what it prints, the last, and of each so many characters. Guesses: a screen. */
const LINES = 20
const LINE_CHARACTERS = 500
/** From the word to end, for what it wants to put away, to the end; and for its last words. A guess. */
const LAST_MS = 500
/** A killed process is gone within milliseconds. */
const LOOK_AGAIN_MS = 5
const MOST_LOOKS = 1_000

export const FOLDER_VARIABLE = 'DIAPAUSE_DRILL'

/** The folder with the drill's commands is the first in which it looks for others. */
const START = `PATH="$${FOLDER_VARIABLE}:$PATH"; export PATH; exec sh -c "$0"`

export interface CheckPlace {
  readonly folder: string
  /** Variables besides its own. */
  readonly variables: Readonly<Record<string, string>>
}

/** DRILL_CHECK where it cannot be started. When it resolves all that it started is gone. */
export async function runCheck(command: string, place: CheckPlace, options: CheckOptions): Promise<CheckOutcome> {
  const { folder, variables } = place
  const { cwd = folder, signal, line } = options
  const env = operatorsEnvironment({ ...variables, [FOLDER_VARIABLE]: folder })
  const args = operatorsCommand('sh', '-c', START, command)
  const child = spawn('setpriv', args, { cwd, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
  const lines = new LastLines(line)
  // Where no descriptor is free for its pipes there are none, and the error follows.
  const { stdout, stderr }: Partial<typeof child> = child
  for (const stream of [stdout, stderr]) stream?.setEncoding('utf8').on('data', (text: string) => lines.take(text))
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', cause => {
      const message = `the check cannot be started in ${cwd}: ${cause.message}`
      reject(new DiapauseError('DRILL_CHECK', message, { cause }))
    })
    child.once('exit', resolve)
  })
  const told = new Promise(resolve => child.once('close', resolve))
  let kill: NodeJS.Timeout | undefined
  const end = (): void => {
    endGroup(child.pid, 'SIGTERM')
    kill = setTimeout(() => endGroup(child.pid, 'SIGKILL'), LAST_MS)
  }
  if (signal.aborted) end()
  else signal.addEventListener('abort', end, { once: true })
  try {
    const exitCode = await ended
    endGroup(child.pid, 'SIGKILL')
    await killChecksOf(folder)
    // Whoever still keeps its output open has hidden from us.
    await Promise.race([told, new Promise(resolve => setTimeout(resolve, LAST_MS).unref())])
    return { exitCode, output: lines.last() }
  } finally {
    signal.removeEventListener('abort', end)
    clearTimeout(kill)
    stdout?.destroy()
    stderr?.destroy()
  }
}

/** Kills all that a check of a drill with this folder has started. Waits until it is gone, but not for one that the kernel is stuck with. */
export async function killChecksOf(folder: string): Promise<void> {
  const mark = `${FOLDER_VARIABLE}=${folder}`
  const killed = new Set<number>()
  for (let looks = 0; looks < MOST_LOOKS; looks++) {
    const left = await marked(mark)
    if (left.length === 0) return
    for (const pid of left) {
      if (killed.has(pid)) continue
      killed.add(pid)
      try {
        process.kill(pid, 'SIGKILL')
      } catch {} // it has gone by itself
    }
    await new Promise(resolve => setTimeout(resolve, LOOK_AGAIN_MS))
  }
}

/** Processes of other users cannot be read, and zombies have no environment. */
async function marked(mark: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter(name => /^[1-9]\d*$/.test(name))
  const environments = await Promise.all(pids.map(pid => readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '')))
  return pids.flatMap((pid, i) => (environments[i]?.split('\0').includes(mark) === true ? [Number(pid)] : []))
}

/** The command and what it started, but for what has made groups of its own. */
function endGroup(pid: number | undefined, name: NodeJS.Signals): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, name)
  } catch {} // nobody is left
}

class LastLines {
  readonly #tell: (line: string) => void
  #lines: string[] = []
  #rest = ''

  constructor(tell: (line: string) => void) {
    this.#tell = tell
  }

  take(text: string): void {
    const whole = (this.#rest + text).split(/\r?\n/)
    this.#rest = (whole.pop() ?? '').slice(0, LINE_CHARACTERS)
    for (const line of whole) this.#add(line)
  }

  last(): readonly string[] {
    if (this.#rest !== '') this.#add(this.#rest)
    this.#rest = ''
    return this.#lines
  }

  #add(text: string): void {
    const line = text.slice(0, LINE_CHARACTERS)
    this.#lines = [...this.#lines, line].slice(-LINES)
    this.#tell(line)
  }
}
