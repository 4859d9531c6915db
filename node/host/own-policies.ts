/**
 * Policies that the operator supplies (`[policies]` of the config): JavaScript modules that export `next(history, now, settings)`.
 * Each runs in a thread of its own, with little memory and a deadline: one that throws, never ends or eats memory costs its
 * group the policy (an interval stands in), and never this peer its heartbeat. Whoever can write the config can run what he likes
 * as this peer's user anyway, so a thread is against mistakes and not against attacks.
 */
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import { DiapauseError, messageOf } from '../errors.ts'
import type { Log, PolicyModules, PolicyQuestion } from '../ports.ts'

/** For an answer. A second: a guess; policies count in microseconds. */
const DEADLINE_MS = 1_000
/** So many times as long to load a module. A guess. */
const LOADING = 5
/** A thread that has failed is not started again sooner. A guess. */
const AGAIN_MS = 10_000
const MEMORY_MIB = 64
const MAX_WHY = 300

/** Runs in the thread. A module that is loaded once answers any number of questions, one after the other. */
const THREAD = `
const { parentPort, workerData } = require('node:worker_threads')
const say = failed => parentPort.postMessage({ failed: String(failed && failed.message || failed).slice(0, ${MAX_WHY}) })
import(workerData).then(({ next }) => {
  if (typeof next !== 'function') throw new Error('it exports no function "next"')
  parentPort.on('message', async ({ history, now, settings }) => {
    try { parentPort.postMessage({ answer: await next(history, now, settings) }) } catch (error) { say(error) }
  })
  parentPort.postMessage({ answer: undefined })
}).catch(say)
`

type Said = { readonly answer: unknown } | { readonly failed: string }

/** Loads all modules of the config; one that cannot be loaded is logged, and its groups have an interval. */
export async function openOwnPolicies(
  files: Readonly<Record<string, string>>,
  log: Log,
  deadlineMs = DEADLINE_MS
): Promise<PolicyModules> {
  const modules = new Map(Object.entries(files).map(([name, file]) => [name, new PolicyThread(name, file, deadlineMs)]))
  const names: string[] = []
  for (const [name, module] of modules) {
    try {
      await module.start()
      names.push(name)
    } catch (error) {
      log.error({ policy: name, file: files[name], error: messageOf(error) }, 'a policy of the config cannot be loaded')
    }
  }
  const moduleOf = (name: string): PolicyThread => {
    const module = modules.get(name)
    if (module !== undefined) return module
    const known = [...modules.keys()].join(', ')
    const has = known === '' ? 'it has none' : `it has ${known}`
    throw new DiapauseError(
      'POLICY_UNKNOWN',
      `this peer has no policy "${name}" under [policies] of its config (${has})`
    )
  }
  return {
    names,
    next: async (name, question) => answerOf(name, await moduleOf(name).ask(question)),
    alone: name => {
      const thread = moduleOf(name).another()
      return { next: async question => answerOf(name, await thread.ask(question)), end: () => thread.end() }
    },
    close: async () => void (await Promise.all([...modules.values()].map(module => module.end())))
  }
}

class PolicyThread {
  readonly #name: string
  readonly #file: string
  readonly #deadlineMs: number
  #thread: Worker | undefined
  #failedAtMs = Number.NEGATIVE_INFINITY
  #reason = ''
  /** One question at a time. */
  #turn: Promise<unknown> = Promise.resolve()

  constructor(name: string, file: string, deadlineMs: number) {
    this.#name = name
    this.#file = file
    this.#deadlineMs = deadlineMs
  }

  /** Of the same file, with nothing else in common. */
  another(): PolicyThread {
    return new PolicyThread(this.#name, this.#file, this.#deadlineMs)
  }

  /** POLICY_FAILED where it fails to load, or has failed a short time ago. */
  async start(): Promise<void> {
    if (this.#thread !== undefined) return
    if (performance.now() - this.#failedAtMs < AGAIN_MS) throw this.#failure(this.#reason)
    this.#thread = new Worker(THREAD, {
      eval: true,
      workerData: pathToFileURL(resolve(this.#file)).href,
      resourceLimits: { maxOldGenerationSizeMb: MEMORY_MIB, maxYoungGenerationSizeMb: MEMORY_MIB / 4 },
      env: {}
    })
    this.#thread.unref()
    this.#thread.on('error', () => {}) // who waits hears of it by itself
    await this.#hear(this.#thread, LOADING * this.#deadlineMs)
  }

  ask(question: PolicyQuestion): Promise<unknown> {
    const answer = this.#turn.then(async () => {
      await this.start()
      const thread = this.#thread as Worker
      const heard = this.#hear(thread, this.#deadlineMs)
      thread.postMessage(question)
      return await heard
    })
    this.#turn = answer.catch(() => {})
    return answer
  }

  async end(): Promise<void> {
    await this.#thread?.terminate()
  }

  /** The next thing that it says. A thread that fails in any way is ended, and made anew later. */
  async #hear(thread: Worker, deadlineMs: number): Promise<unknown> {
    const said = Promise.withResolvers<Said>()
    const onError = (error: unknown): void => said.reject(error)
    const onExit = (): void => said.reject(new Error('its thread has ended'))
    const timer = setTimeout(() => said.reject(new Error(`no answer within ${deadlineMs} ms`)), deadlineMs)
    thread.once('message', said.resolve).once('error', onError).once('exit', onExit)
    try {
      const what = await said.promise
      if ('failed' in what) throw new Error(what.failed)
      return what.answer
    } catch (error) {
      this.#reason = messageOf(error)
      this.#failedAtMs = performance.now()
      this.#thread = undefined
      await thread.terminate()
      throw this.#failure(this.#reason)
    } finally {
      clearTimeout(timer)
      thread.off('message', said.resolve).off('error', onError).off('exit', onExit)
    }
  }

  #failure(reason: string): DiapauseError {
    return new DiapauseError('POLICY_FAILED', `policy "${this.#name}" has failed: ${reason}`)
  }
}

/** POLICY_FAILED where it is none. */
function answerOf(name: string, answer: unknown): { atMs: number; why: string } | undefined {
  if (answer === undefined || answer === null) return undefined
  if (typeof answer === 'object' && 'atMs' in answer && 'why' in answer) {
    const { atMs, why } = answer
    if (typeof atMs === 'number' && Number.isFinite(atMs) && typeof why === 'string') {
      return { atMs, why: why.slice(0, MAX_WHY) }
    }
  }
  throw new DiapauseError(
    'POLICY_FAILED',
    `policy "${name}" says ${JSON.stringify(answer)?.slice(0, 100)}: expected undefined or { atMs: milliseconds since 1970, why: a text }`
  )
}
