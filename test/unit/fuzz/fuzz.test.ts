/** Every parser of foreign bytes against some mutated inputs, and the fuzzer against parsers that are wrong. */
import { spawn } from 'node:child_process'
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Finding } from '../../fuzz/findings.ts'
import { fuzz, type FuzzOptions } from '../../fuzz/fuzz.ts'
import { inputOf } from '../../fuzz/input.ts'
import { grownOf, seedsOf, storedBytes } from '../../fuzz/corpus.ts'
import { PARSERS } from '../../fuzz/message-targets.ts'
import { targets } from '../../fuzz/targets.ts'
import { generator } from '../../sim/kernel.ts'
import { mutate, mutateValue } from '../../fuzz/mutate.ts'
import { targets as broken } from './broken-targets.ts'

const root = join(import.meta.dirname, '../../..')
let folder: string

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'diapause-fuzz-'))
})
afterAll(() => rmSync(folder, { recursive: true }))

async function run(names: readonly string[], options: Partial<FuzzOptions> = {}) {
  const lines: string[] = []
  const fuzzed = await fuzz({
    targets: broken.filter(({ name }) => names.includes(name)),
    module: new URL('./broken-targets.ts', import.meta.url).href,
    seed: 3,
    until: { runs: 400 * names.length },
    out: folder,
    hangMs: 30_000,
    progress: line => void lines.push(line),
    ...options
  })
  return { ...fuzzed, lines }
}

describe('the fuzzer', () => {
  it('fails where its time was too short for an input of each target', async () => {
    const { checks } = await run(['sound'], { until: { minutes: 1e-9 } })
    const short = { name: 'targets without an input', value: 1, bound: '0', ok: false }
    expect(checks).toContainEqual(expect.objectContaining(short))
  })

  it.each([
    ['throws', 'threw', 'TypeError: beyond the end'],
    ['rejects', 'threw', 'TypeError: beyond the end'],
    ['hangs', 'hang', 'took more than 500 ms'],
    ['hoards', 'memory', 'bytes of memory'],
    ['recurses', 'threw', 'RangeError: Maximum call stack'],
    ['fills the heap', 'died', 'memory limit'],
    ['exits', 'died', 'its thread has ended'],
    ['forgets', 'died', 'nobody awaits it']
  ])(
    'finds a parser that %s, with its input and how to have it again',
    async (name, kind, what) => {
      const hang = name === 'hangs' ? { hangMs: 500 } : {}
      const { details, checks, lines } = await run([name], hang)
      const [finding] = details.findings as [Finding]
      expect(finding).toMatchObject({ target: name, kind, what: expect.stringContaining(what) })
      expect(readFileSync(finding.file).length).toBeLessThan(60)
      expect(lines[0]).toContain(`--target ${name} --seed 3 --number ${finding.index}`)
      expect(checks.find(check => check.name === name)).toMatchObject({ ok: false, value: details.findings.length })
      const again = await run([name], { ...hang, number: finding.index })
      expect(again.details.findings).toMatchObject([{ index: finding.index, kind }])
    },
    60_000
  )

  it('goes on with all others where one is wrong, and stops with that one after a few findings', async () => {
    const { details, checks } = await run(['sound', 'throws'])
    expect(details.findings.map(({ target }) => target)).toEqual(Array.from({ length: 5 }, () => 'throws'))
    const { sound } = details.statistics
    expect(sound).toMatchObject({ inputs: 400, findings: 0 })
    expect(sound?.refused['REFUSED']).toBeGreaterThan(10)
    expect(checks.find(({ name }) => name === 'sound')?.ok).toBe(true)
  })

  it('takes the bytes of a file in the place of what it would mutate', async () => {
    const until = { runs: 1 }
    expect((await run(['throws'], { until, input: new Uint8Array(64) })).details.findings).toEqual([])
    const { findings } = (await run(['throws'], { until, input: new Uint8Array(3) })).details
    expect(findings).toMatchObject([{ byBytes: true, again: expect.stringContaining(`--input ${findings[0]?.file}`) }])
    expect(readFileSync(findings[0]?.file ?? '').length).toBe(3)
  })

  it('makes the same input of the same seed and number, and others of others', () => {
    for (const target of targets) {
      const seeds = target.seeds()
      const make = (seed: number, index: number) =>
        Buffer.from(inputOf(target, seeds, { seed, index }).input).toString('hex')
      expect(make(1, 5)).toBe(make(1, 5))
      const all = Array.from({ length: 20 }, (_, i) => [make(1, i), make(2, i)]).flat()
      expect(new Set(all).size, target.name).toBeGreaterThan(15)
    }
  })

  it('begins with what was found so, of every target', () => {
    for (const target of targets) {
      const grown = grownOf(target.name)
      expect(seedsOf(target).slice(-grown.length || Infinity)).toEqual(grown)
      expect(Math.max(0, ...grown.map(storedBytes)), target.name).toBeLessThanOrEqual(4_096)
      expect(Math.max(0, ...grown.map(({ length }) => length)), target.name).toBeLessThanOrEqual(48 << 10)
    }
    const without = targets.filter(({ name }) => grownOf(name).length === 0).map(({ name }) => name)
    const readme = readFileSync(join(root, 'test/fuzz/corpus/README.md'), 'utf8')
    const explained = readme.slice(readme.indexOf('A target without a file')).matchAll(/`([a-z0-9-]+)`/g)
    expect(without.sort()).toEqual([...explained].map(([, name = '']) => name).sort())
  })

  it('leaves what it mutates as it was', () => {
    const [bytes, value] = [new Uint8Array(300).fill(7), { a: [1, { b: new Uint8Array(2) }], c: 'text' }]
    const before = structuredClone(value)
    for (let seed = 0; seed < 500; seed++) {
      mutate(bytes, generator(seed), [bytes])
      mutateValue(value, generator(seed))
    }
    expect(bytes).toEqual(new Uint8Array(300).fill(7))
    expect(value).toEqual(before)
  })
})

it('every protocol of the control bus is among the targets', () => {
  const sources = globSync('{protocols,node}/**/*.ts', { cwd: root }).map(file =>
    readFileSync(join(root, file), 'utf8')
  )
  const named = sources.flatMap(text => [...text.matchAll(/\bPROTOCOL = '([a-z-]+)'|_PROTOCOL = '([a-z-]+)'/g)])
  const names = [...new Set(named.map(([, own, other]) => own ?? other ?? ''))]
  expect(names.length).toBeGreaterThan(8)
  expect(names.filter(name => !Object.hasOwn(PARSERS, name))).toEqual([])
})

describe('npm run fuzz', () => {
  const command = (...args: string[]): Promise<{ code: number | null; out: string; err: string }> => {
    const child = spawn(process.execPath, [join(root, 'test/fuzz/main.ts'), ...args])
    let [out, err] = ['', '']
    child.stdout.on('data', (part: Buffer) => (out += part.toString()))
    child.stderr.on('data', (part: Buffer) => (err += part.toString()))
    return new Promise(resolve => child.on('close', code => resolve({ code, out, err })))
  }

  it('gives every parser of foreign bytes some inputs, and finds nothing', async () => {
    const file = join(folder, 'fuzz.json')
    const { code, out, err } = await command('--runs', String(150 * targets.length), '--json', file)
    expect(err).toBe('')
    expect(code, out).toBe(0)
    const report = JSON.parse(readFileSync(file, 'utf8')) as { checks: { name: string; value: unknown }[] }
    expect(report).toMatchObject({ name: 'fuzz', machine: { node: process.versions.node }, seed: 1, findings: [] })
    for (const { name } of targets) expect(report.checks).toContainEqual(expect.objectContaining({ name, value: 0 }))
    expect(report.checks).toContainEqual(expect.objectContaining({ name: 'inputs', value: 150 * targets.length }))
  }, 60_000)

  it('grows for a part of its minutes, and leaves the corpus as it is', async () => {
    const before = grownOf('qmp')
    const { code, out } = await command('--target', 'qmp', '--minutes', '0.01')
    expect(code, out).toBe(0)
    expect(out).toMatch(/ growing .*\n +qmp +[1-9]/)
    expect(grownOf('qmp')).toEqual(before)
  }, 60_000)

  it('refuses options without a meaning with exit code 2', async () => {
    const unknown = await command('--target', 'manifset')
    expect(unknown).toMatchObject({ code: 2, err: expect.stringContaining('  manifest') })
    expect(await command('--runs', '5', '--minutes', '1')).toMatchObject({ code: 2 })
    expect(await command('--grow', '--runs', '5')).toMatchObject({ code: 2, err: expect.stringContaining('--minutes') })
    expect(await command('--runs', 'many')).toMatchObject({ code: 2, err: expect.stringContaining('--runs takes') })
  })
})
