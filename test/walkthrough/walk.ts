/** Goes through a page of documentation as its reader does: types its commands, on the hosts it names, and reads what they print. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Hosts } from '../hosts/hosts.ts'
import type { Step } from './page.ts'
import { filled, matched, type Words } from './printed.ts'
import { type Place, type Printed, Screen, Shell } from './terminal.ts'

/** How long something is typed again. Several times what a busy machine took. */
const AGAIN_MS = 90_000

export interface WalkOptions {
  readonly hosts: Hosts
  /** What the page calls the hosts, in their order. */
  readonly names: readonly string[]
  /** Words of the page that stand for what differs each time. */
  readonly words: readonly string[]
  /** Where people stand who type: the clone. */
  readonly cwd: string
}

export class Walk {
  readonly #options: WalkOptions
  readonly #shells = new Map<string, Shell>()
  readonly #screens = new Map<string, Screen>()
  /** In the order in which they were. */
  readonly followed: Step[] = []
  #failed = false
  #words: Words = new Map()

  constructor(options: WalkOptions) {
    this.#options = options
  }

  /** Throws an Error that says which line of the page is not so. */
  async follow(step: Step): Promise<void> {
    if (this.#failed) throw new Error(`line ${step.line}: not followed, since what stands before it was not so`)
    for (const host of step.hosts) {
      try {
        await this.#follow(step, host)
      } catch (error) {
        this.#failed = true
        const screens = [...this.#screens].map(([name, screen]) => `--- terminal of ${name}:\n${screen.shows}`)
        throw new Error(`line ${step.line}, on ${host}: ${(error as Error).message}\n${screens.join('\n')}`, {
          cause: error
        })
      }
    }
    this.followed.push(step)
  }

  /** Terminals in which something still goes on. */
  get open(): string[] {
    return [...this.#screens].flatMap(([host, screen]) => (screen.open ? [host] : []))
  }

  end(): void {
    for (const shell of this.#shells.values()) shell.end()
    for (const screen of this.#screens.values()) screen.end()
  }

  async #follow(step: Step, host: string): Promise<void> {
    if (step.kind === 'Ctrl-C') {
      const screen = this.#screens.get(host)
      if (screen?.open !== true) throw new Error('nothing goes on in its terminal that Ctrl-C could end')
      return await screen.interrupt()
    }
    const commands = filled(step.commands, this.#options.words, this.#words)
    if (step.kind === 'left open') {
      if (this.#screens.get(host)?.open === true) throw new Error('something goes on in its terminal already')
      this.#screens.set(host, new Screen(this.#place(host), commands))
      return
    }
    await this.#type(step, host, commands)
  }

  async #type({ prints, again }: Step, host: string, commands: string): Promise<void> {
    const shell = this.#shells.get(host) ?? new Shell(this.#place(host))
    this.#shells.set(host, shell)
    const deadline = performance.now() + AGAIN_MS
    for (;;) {
      const printed = await shell.type(commands)
      const words = this.#right(prints, printed)
      if (words !== undefined) {
        this.#words = words
        return
      }
      if (!again || performance.now() > deadline) throw new Error(wrong(commands, prints, printed))
      await sleep(500)
    }
  }

  #right(prints: string | undefined, { code, output }: Printed): Words | undefined {
    if (code !== 0) return undefined
    return prints === undefined ? this.#words : matched(prints, output, this.#options.words, this.#words)
  }

  #place(name: string): Place {
    const { hosts, names, cwd } = this.#options
    const host = hosts.all[names.indexOf(name)]
    if (host === undefined) throw new Error(`there is no host ${name}`)
    const dir = join(hosts.dir, 'terminals')
    mkdirSync(dir, { recursive: true })
    return { on: hosts.on(host), cwd, dir, name }
  }
}

function wrong(commands: string, prints: string | undefined, { code, output }: Printed): string {
  const expected = prints === undefined ? '' : `\n--- the page says:\n${prints}`
  return `${commands}\n--- printed (exit code ${code}):\n${output.trimEnd()}${expected}`
}
