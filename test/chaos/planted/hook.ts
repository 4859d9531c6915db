/**
 * Loaded into each peer before its program, and into each of its threads: the module of the mistake that the address of this one
 * names (`hook.ts?mistake=NAME`) is another when it is loaded.
 */
import { registerHooks } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { MISTAKES } from './list.ts'
import { plant, ROOT } from './mistake.ts'

const name = new URL(import.meta.url).searchParams.get('mistake') ?? ''
const mistake = MISTAKES.get(name)
if (mistake === undefined) throw new TypeError(`there is no mistake ${JSON.stringify(name)}`)
const at = pathToFileURL(join(ROOT, mistake.file)).href

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context)
    if (url !== at) return loaded
    if (!(loaded.source instanceof Uint8Array)) throw new TypeError(`the text of ${url} is not at hand`)
    // Told once a process, in its log: a mistake that nobody loaded proves nothing.
    process.stderr.write(`planted: ${mistake.name}\n`)
    return { ...loaded, source: plant(Buffer.from(loaded.source).toString('utf8'), mistake) }
  }
})
