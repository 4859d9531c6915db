/** The rules that no formatter, linter or type checker knows. A failure lists every place and says why. */
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { bannedCalls, forbiddenImports, isPure, libp2pOutsideItsFiles, unusedFiles } from './tidy/rules.ts'
import { functionsOf, readSources, root, toSource } from './tidy/sources.ts'

const MAX_FILE_LINES = 400
const MAX_FUNCTION_LINES = 70

/** Functions that were longer before the rule; the number may only shrink. An entry that fits again must go. */
const longFunctions: Readonly<Record<string, number>> = {
  // One contract whose tests share a VM, so that a boot is not paid for each.
  'test/contract/hypervisor-contract.ts hypervisorContract': 328
}

const files = readSources()
const packageJson = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> }

/** One sentence a line, so that a failure reads as a list. */
const expectNone = (findings: readonly string[]): void => expect(findings.join('\n')).toBe('')

describe('the source tree', () => {
  it('keeps the rule who may import whom', () => expectNone(forbiddenImports(files)))

  it('touches libp2p in a few files only', () => expectNone(libp2pOutsideItsFiles(files)))

  it('has none of the banned calls and words', () => expectNone(bannedCalls(files)))

  it('has no file that nothing uses', () => {
    const scripts = Object.values(packageJson.scripts).flatMap(script => script.match(/\S+\.(?:ts|mjs)/g) ?? [])
    const tests = files.map(({ path }) => path).filter(path => path.endsWith('.test.ts'))
    // What programs import, and examples of it.
    const library = files.map(({ path }) => path).filter(path => path.startsWith('node/library/'))
    expectNone(unusedFiles(files, [...scripts, ...tests, ...library, 'test/reporter.ts', 'test/prepare.ts']))
  })

  it(`has no file of more than ${MAX_FILE_LINES} lines`, () => {
    const long = files.map(({ path, text }) => ({ path, lines: text.split('\n').length - 1 }))
    expectNone(
      long.filter(({ lines }) => lines > MAX_FILE_LINES).map(({ path, lines }) => `${path} has ${lines} lines`)
    )
  })

  it(`has no function of more than ${MAX_FUNCTION_LINES} lines, but for those that shrink`, () => {
    const findings: string[] = []
    const seen = new Set<string>()
    for (const file of files) {
      for (const { name, line, lines } of functionsOf(file)) {
        const key = `${file.path} ${name}`
        const allowed = longFunctions[key] ?? MAX_FUNCTION_LINES
        if (lines > MAX_FUNCTION_LINES) seen.add(key)
        if (lines > allowed) findings.push(`${file.path}:${line} ${name} has ${lines} lines: split it`)
      }
    }
    for (const key of Object.keys(longFunctions)) if (!seen.has(key)) findings.push(`${key} fits now: remove its entry`)
    expectNone(findings)
  })

  it('explains every folder of three files or more in a README.md', () => {
    const folders = new Map<string, number>()
    for (const { path } of files) folders.set(dirname(path), (folders.get(dirname(path)) ?? 0) + 1)
    const bare = [...folders].filter(([folder, count]) => count >= 3 && !existsSync(join(root, folder, 'README.md')))
    expectNone(bare.map(([folder, count]) => `${folder} has ${count} files and no README.md`))
  })

  it('documents only npm scripts that exist', () => {
    const folders = ['config', 'docker', 'node', 'protocols', 'test'].flatMap(folder =>
      readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map(path => join(folder, path))
    )
    const pages = [...readdirSync(root), ...folders].filter(path => path.endsWith('.md'))
    expect(pages).toContain('README.md')
    const findings = pages.flatMap(page => {
      const named = readFileSync(join(root, page), 'utf8').matchAll(/npm run (?:-s |--silent )?([a-z][\w:-]*)/g)
      return [...named]
        .filter(([, name = '']) => !(name in packageJson.scripts))
        .map(([text]) => `${page} names \`${text}\``)
    })
    expectNone(findings)
  })
})

describe('the rules themselves', () => {
  it('see imports of every form, and none in comments and strings', () => {
    const text = `
import { a } from './a.ts'
import type { B } from '../b.ts'
import {
  type C,
  type D
} from './c.ts'
export { e } from './e.ts'
const f = await import('./f.ts')
import g from '@libp2p/crypto/keys'
// import h from './h.ts'
const i = "import i from './i.ts'"
`
    const { imports } = toSource('node/x/y.ts', text)
    expect(imports.map(({ target, typeOnly, line }) => `${line} ${target}${typeOnly ? ' (type)' : ''}`)).toEqual([
      '2 node/x/a.ts',
      '3 node/b.ts (type)',
      '7 node/x/c.ts (type)',
      '8 node/x/e.ts',
      '9 node/x/f.ts',
      '10 @libp2p/crypto'
    ])
  })

  it('find what is forbidden, with file, line and reason', () => {
    const bad = [
      toSource('node/agents/a.ts', "import { x } from '../store/shard-store.ts'\nMath.random()\n"),
      toSource(
        'protocols/b.ts',
        "import { y } from '../node/ports.ts'\nimport 'libp2p'\nawait 1 // Date.now\n'Date.now'\n"
      ),
      toSource('node/store/c.ts', "import { z } from '../switch/switch.ts'\nprocess.env.HOME\n"),
      toSource('node/edge/d.ts', "import { runPeer } from '../peer.ts'\n")
    ]
    expect(forbiddenImports(bad)).toEqual([
      expect.stringMatching(/^node\/agents\/a.ts:1 imports node\/store\/shard-store.ts: agents know ports/),
      expect.stringMatching(/^protocols\/b.ts:1 imports node\/ports.ts: only its types/),
      expect.stringMatching(/^node\/store\/c.ts:1 imports node\/switch\/switch.ts: an adapter knows/),
      expect.stringMatching(/^node\/edge\/d.ts:1 imports node\/peer.ts: only main.ts/)
    ])
    expect(libp2pOutsideItsFiles(bad)).toHaveLength(1)
    expect(bannedCalls(bad)).toEqual([
      'node/agents/a.ts:2 has Math.random: time and chance come through ports (Clock, Random)',
      'protocols/b.ts:3 has await: a pure file does not wait',
      expect.stringMatching(/^node\/store\/c.ts:2 has process.env: argv, environment/)
    ])
    expect(isPure('protocols/lease/holder.ts')).toBe(true)
    expect(isPure('protocols/lease/shell.ts')).toBe(false)
  })

  it('find files that nobody uses, or tests only', () => {
    const tree = [
      toSource('node/main.ts', "import './a.ts'\nnew Worker(new URL('./worker.ts', import.meta.url))\n"),
      toSource('node/a.ts', ''),
      toSource('node/worker.ts', ''),
      toSource('node/b.ts', ''),
      toSource('node/c.ts', ''),
      toSource('test/c.test.ts', "import '../node/c.ts'\n")
    ]
    expect(unusedFiles(tree, ['node/main.ts', 'test/c.test.ts'])).toEqual([
      'node/b.ts: nothing uses it',
      'node/c.ts: only tests use it'
    ])
  })

  it('measure functions', () => {
    const text = `export class A {
  constructor(options: {
    a: number
  }) {
    this.a = 1
  }

  async #method(): Promise<void> {
    if (a) {
      b()
    }
  }
}

const arrow = (x: number): number => {
  return x
}

function plain() {
  return 1
}
`
    const spans = functionsOf(toSource('a.ts', text)).map(({ name, lines }) => `${name} ${lines}`)
    expect(spans).toEqual(['constructor 5', '#method 5', 'arrow 3', 'plain 3'])
  })
})
