/** A QEMU that knows nothing of diapause, spoken to over its standard streams. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

type Answer = { readonly return?: unknown; readonly error?: { readonly desc: string } }

export class StockQemu {
  readonly #process: ChildProcess
  readonly #answers: ((answer: Answer) => void)[] = []
  #errors = ''

  /** Runs the script of an export, with more arguments. Its console goes to a file. Ends with this process. */
  constructor(script: string, consoleFile: string, args: readonly string[] = []) {
    const all = ['--pdeathsig', 'KILL', 'sh', script, ...args, '-display', 'none', '-qmp', 'stdio']
    const env = { ...process.env, SERIAL: `file:${consoleFile}` }
    const child = spawn('setpriv', all, { stdio: ['pipe', 'pipe', 'pipe'], env })
    this.#process = child
    child.stderr.on('data', (part: Buffer) => (this.#errors += part.toString()))
    child.stdin.on('error', () => {})
    createInterface({ input: child.stdout }).on('line', line => {
      const message = JSON.parse(line) as Answer
      if ('return' in message || 'error' in message) this.#answers.shift()?.(message)
    })
    child.on('close', () => {
      for (const answer of this.#answers.splice(0)) answer({ error: { desc: `QEMU has ended: ${this.#errors}` } })
    })
  }

  async command(execute: string, args: object = {}): Promise<unknown> {
    const { promise, resolve } = Promise.withResolvers<Answer>()
    this.#answers.push(resolve)
    this.#process.stdin?.write(`${JSON.stringify({ execute, arguments: args })}\n`)
    const answer = this.#process.exitCode === null ? await promise : { error: { desc: this.#errors } }
    if (answer.error !== undefined) throw new Error(`${execute}: ${answer.error.desc}`)
    return answer.return
  }

  /** Its run state when it has loaded what comes in. Rejects where it ends instead. */
  async loaded(): Promise<string> {
    await this.command('qmp_capabilities')
    for (;;) {
      const { status } = (await this.command('query-status')) as { status: string }
      if (status !== 'inmigrate') return status
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  }

  /** Its own migration to a file. */
  async save(file: string): Promise<void> {
    await this.command('migrate', { uri: `exec:cat > ${file}` })
    for (;;) {
      const { status } = (await this.command('query-migrate')) as { status: string }
      if (status === 'completed') return
      if (status === 'failed' || status === 'cancelled') throw new Error(`migration ${status}: ${this.#errors}`)
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  }

  async end(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return
    this.#process.kill('SIGKILL')
    await once(this.#process, 'close')
  }
}
