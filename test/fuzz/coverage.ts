/**
 * Which blocks of our own program have run in this thread, by V8's count (Profiler.takePreciseCoverage of the inspector, which counts
 * branches). A look costs some ten milliseconds, so it is taken of many inputs at a time.
 */
import { Session } from 'node:inspector'

interface Range {
  readonly startOffset: number
  readonly endOffset: number
  readonly count: number
}
interface Coverage {
  readonly result: readonly {
    readonly url: string
    readonly functions: readonly { readonly functionName: string; readonly ranges: readonly Range[] }[]
  }[]
}

/** What is ours, and not what fuzzes it. */
const OURS = /\/((?:node|protocols|config)\/[^?]+\.ts)$/
const NOT_OURS = /\/node_modules\/|\/test\//

export class Blocks {
  readonly #session = new Session()
  /** By function: where blocks begin. */
  readonly #begins = new Map<string, Set<number>>()

  constructor() {
    this.#session.connect()
    this.#post('Profiler.enable')
    this.#post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
  }

  /**
   * Blocks that have run since the last look, by function and by where they begin. V8 tells a block apart only where it ran more or
   * less often than what is around it: of one input that ran every block once it tells the function and no more. So a block that any
   * look has told apart is looked for in all that follow.
   */
  taken(): Set<string> {
    const blocks = new Set<string>()
    for (const { url, functions } of this.#look()) {
      for (const { ranges } of functions) {
        const name = `${url} ${ranges[0]?.startOffset}`
        const begins = this.#begins.get(name) ?? new Set()
        this.#begins.set(name, begins)
        for (const { startOffset } of ranges) begins.add(startOffset)
        for (const at of begins) if (countAt(ranges, at) > 0) blocks.add(`${name} ${at}`)
      }
    }
    return blocks
  }

  /** Functions and classes that have run since the last look: `protocols/stream.ts MessageCutter`. */
  functions(): Set<string> {
    const ran = new Set<string>()
    for (const { url, functions } of this.#look()) {
      const file = OURS.exec(url)?.[1]
      for (const { functionName, ranges } of functions)
        if ((ranges[0]?.count ?? 0) > 0) ran.add(`${file} ${functionName}`)
    }
    return ran
  }

  close(): void {
    this.#session.disconnect()
  }

  #look(): Coverage['result'] {
    const { result } = this.#post('Profiler.takePreciseCoverage') as Coverage
    return result.filter(({ url }) => OURS.test(url) && !NOT_OURS.test(url))
  }

  /** A session of the thread itself answers before this returns. */
  #post(method: string, parameters: object = {}): unknown {
    let [failed, answer]: [Error | null, unknown] = [null, undefined]
    this.#session.post(method, parameters, (error, result) => {
      failed = error
      answer = result
    })
    if (failed !== null) throw failed as Error
    return answer
  }
}

/** How often the innermost of a function's ranges ran that `at` is in; inner ones follow outer ones. */
const countAt = (ranges: readonly Range[], at: number): number =>
  ranges.findLast(({ startOffset, endOffset }) => startOffset <= at && at < endOffset)?.count ?? 0
