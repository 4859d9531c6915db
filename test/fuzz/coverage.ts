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

  constructor() {
    this.#session.connect()
    this.#post('Profiler.enable')
    this.#post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
  }

  /** Since the last look. */
  taken(): Set<string> {
    const blocks = new Set<string>()
    for (const { url, functions } of this.#look()) {
      for (const { ranges } of functions)
        for (const { startOffset, endOffset, count } of ranges)
          if (count > 0) blocks.add(`${url} ${startOffset}-${endOffset}`)
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
