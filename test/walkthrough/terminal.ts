/**
 * Terminals of a host, as a person has them. `Shell` is one in which commands end: what is set in it stays set. `Screen` is
 * one in which a command goes on: a pty, so that Ctrl-C reaches it as from a keyboard. Both end with this process, and what
 * runs in them with them.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { killAll, tree, waitUntil } from '../demo/processes.ts'

export interface Printed {
  readonly code: number
  /** Both outputs, as they came. */
  readonly output: string
}

/** Where a terminal is. */
export interface Place {
  /** Words before a command that is to run there. */
  readonly on: readonly string[]
  readonly cwd: string
  /** For the files of the terminal itself. */
  readonly dir: string
  readonly name: string
}

/** Longest that commands may take which end by themselves, and a peer to stop. Several times what a busy machine took. */
const LIMIT_MS = 120_000

const begin = (on: readonly string[], words: readonly string[]): [string, string[]] => {
  const [command = '', ...args] = [...on, 'setpriv', '--pdeathsig', 'KILL', ...words]
  return [command, args]
}

/** A person's environment: nothing of the test's own, and of no npm script. */
function environment(): NodeJS.ProcessEnv {
  const kept = ['PATH', 'HOME', 'USER', 'LANG', 'TMPDIR', 'SHELL']
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => kept.includes(name)))
}

export class Shell {
  readonly #place: Place
  readonly #bash: ChildProcess
  /** Of who waits for what bash says. */
  #heard: (line: string) => void = () => {}
  #blocks = 0

  constructor(place: Place) {
    const [command, args] = begin(place.on, ['bash', '--noprofile', '--norc', '-O', 'expand_aliases', '-o', 'pipefail'])
    const { cwd } = place
    this.#place = place
    this.#bash = spawn(command, args, { cwd, env: environment(), stdio: ['pipe', 'pipe', 'inherit'] })
    this.#bash.stdin?.on('error', () => {}) // it has ended; whoever waits hears of it
    createInterface({ input: this.#bash.stdout as NodeJS.ReadableStream })
      .on('line', line => this.#heard(line))
      .on('close', () => this.#heard('the shell has ended'))
  }

  /** Types lines, one after the other; the exit code of the last that failed, or 0. */
  async type(lines: string): Promise<Printed> {
    const { dir, name } = this.#place
    const file = join(dir, `${name}-${++this.#blocks}`)
    writeFileSync(file, `${lines}\n`)
    const answer = new Promise<string>(resolve => (this.#heard = resolve))
    const limit = setTimeout(() => killAll(tree(this.#bash.pid ?? 0)), LIMIT_MS)
    this.#bash.stdin?.write(
      `failed=0; trap 'failed=$?' ERR; . '${file}' < /dev/null > '${file}.out' 2>&1; trap - ERR; echo $failed\n`
    )
    const said = await answer
    clearTimeout(limit)
    const output = readFileSync(`${file}.out`, 'utf8')
    if (!/^\d+$/.test(said)) throw new Error(`${name}: ${said} at\n${lines}\n${output}`)
    return { code: Number(said), output }
  }

  end(): void {
    this.#bash.stdin?.end()
  }
}

export class Screen {
  readonly #log: string
  readonly #script: ChildProcess

  constructor(place: Place, lines: string) {
    this.#log = join(place.dir, `${place.name}-screen`)
    const { cwd } = place
    const words = ['script', '--quiet', '--return', '--flush', '--command', `set -e\n${lines}`, '/dev/null']
    const [command, args] = begin(place.on, words)
    const log = openSync(this.#log, 'a')
    const env = { ...environment(), SHELL: '/bin/bash', TERM: 'dumb' }
    this.#script = spawn(command, args, { cwd, env, stdio: ['pipe', log, log] })
    closeSync(log)
    this.#script.stdin?.on('error', () => {})
  }

  /** Its command goes on. */
  get open(): boolean {
    return this.#script.exitCode === null && this.#script.signalCode === null
  }

  /** The end of what is to be seen on it. */
  get shows(): string {
    return readFileSync(this.#log, 'utf8').split('\n').slice(-12).join('\n')
  }

  /** Ctrl-C; resolves when the command has ended. Throws where it has not after a long time. */
  async interrupt(): Promise<void> {
    this.#script.stdin?.write('\x03')
    if (!(await waitUntil(() => !this.open, LIMIT_MS))) throw new Error(`Ctrl-C did not end it:\n${this.shows}`)
  }

  /** At once, with all that runs in it. */
  end(): void {
    if (this.open) killAll(tree(this.#script.pid ?? 0))
  }
}
