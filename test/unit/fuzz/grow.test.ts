/** Growing inputs by what has run, against parsers that are wrong: what fails is kept and told, and what grows is kept where asked. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { command } from '../../fuzz/command.ts'
import type { Finding } from '../../fuzz/findings.ts'
import { grow, type GrowOptions } from '../../fuzz/grow.ts'
import type { Growth } from '../../fuzz/grow-all.ts'
import type { Failure } from '../../fuzz/run-input.ts'
import type { Target } from '../../fuzz/target.ts'
import { targets } from '../../fuzz/targets.ts'
import { targets as broken } from './broken-targets.ts'

let folder: string

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'diapause-grow-'))
})
afterAll(() => rmSync(folder, { recursive: true }))

interface Report {
  readonly checks: readonly { readonly name: string; readonly value: unknown; readonly ok: boolean }[]
  readonly findings: readonly Finding[]
  readonly growth?: Readonly<Record<string, Growth>>
}

const BROKEN = new URL('./broken-targets.ts', import.meta.url).href

/** `npm run fuzz -- WORDS…` with the parsers that are wrong. */
async function run(words: readonly string[], hangMs = 30_000, from = broken, module = BROKEN) {
  const written = new Map<string, readonly Uint8Array[]>()
  const lines: string[] = []
  const json = join(folder, 'report.json')
  const code = await command([...words, '--seed', '3', '--json', json], {
    targets: from,
    module,
    out: folder,
    hangMs,
    write: (name, inputs) => void written.set(name, inputs),
    print: () => {},
    progress: line => void lines.push(line)
  })
  return { code, lines, written, report: JSON.parse(readFileSync(json, 'utf8')) as Report }
}

describe('growing', () => {
  it.each([
    ['throws', 'threw', 'TypeError: beyond the end'],
    ['rejects', 'threw', 'TypeError: beyond the end'],
    ['chooses', 'threw', 'TypeError: in these chunks'],
    ['hangs', 'hang', 'took more than 500 ms'],
    ['hoards', 'memory', 'bytes of memory'],
    ['exits', 'died', 'its thread has ended'],
    ['forgets', 'died', 'nobody awaits it']
  ])(
    'finds a parser that %s: keeps its inputs, tells how to run them again, and fails',
    async (name, kind, what) => {
      const hangMs = name === 'hangs' ? 500 : undefined
      const { code, lines, report } = await run(['--grow', '--target', name, '--minutes', '0.02'], hangMs)
      expect(code).toBe(1)
      const [finding] = report.findings as readonly [Finding]
      expect(finding).toMatchObject({ target: name, seed: 3, kind, what: expect.stringContaining(what) })
      expect(readFileSync(finding.file).length).toBeLessThan(60)
      expect(lines).toHaveLength(report.findings.length)
      expect(lines[0]).toContain(finding.again)
      const count = report.findings.length
      expect(new Set(report.findings.map(({ file }) => file)).size).toBe(count)
      expect(count).toBeLessThanOrEqual(5)
      expect(report.checks).toContainEqual(expect.objectContaining({ name, value: count, ok: false }))
      expect(report.growth?.[name]).toMatchObject({ findings: count })

      expect(finding.again).toBe(`npm run fuzz -- --target ${name} --seed 3 --number 0 --input ${finding.file}`)
      const again = await run(['--target', name, '--number', '0', '--input', finding.file], hangMs)
      expect(again).toMatchObject({ code: 1, report: { findings: [{ kind, file: finding.file }] } })
    },
    60_000
  )

  it('goes on with others behind a parser that takes threads with it, and finds no more than a few of one', async () => {
    const some = broken.filter(({ name }) => ['sound', 'throws', 'hangs', 'exits'].includes(name))
    const { code, report } = await run(['--grow', '--minutes', '0.05'], 500, some)
    expect(code).toBe(1)
    const sound = report.checks.filter(({ ok }) => ok).map(({ name }) => name)
    expect(sound).toEqual(['sound', 'targets that were not grown', 'targets that were grown', 'inputs while growing'])
    expect(report.growth?.['sound']?.tried).toBeGreaterThan(0)
    expect(Math.max(...Object.values(report.growth ?? {}).map(({ findings }) => findings))).toBe(5)
  }, 60_000)

  it('is a part of a run of minutes, whose findings count with those of numbered inputs, and writes nothing', async () => {
    const sound = await run(['--minutes', '0.02', '--target', 'sound'])
    expect(sound).toMatchObject({ code: 0, report: { findings: [] } })
    expect(sound.report.growth?.['sound']?.tried).toBeGreaterThan(0)
    const inputs = sound.report.checks.find(({ name }) => name === 'inputs')
    expect(inputs?.value).toBeGreaterThan(0)
    const { code, report } = await run(['--minutes', '0.02', '--target', 'throws'])
    expect(code).toBe(1)
    expect(report.findings.map(({ byBytes }) => byBytes)).toEqual([true, true, true, true, true])
    expect(report.checks).toContainEqual(expect.objectContaining({ name: 'throws', value: 5, ok: false }))
    expect(sound.written.size).toBe(0)
  }, 60_000)

  it('is kept where asked for only', async () => {
    const { code, written } = await run(['--grow', '--minutes', '0.01', '--target', 'sound'])
    expect(code).toBe(0)
    expect([...written.keys()]).toEqual(['sound'])
  }, 60_000)

  it('keeps what it had of a parser that takes one thread after the other with it, without the inputs that failed', async () => {
    const { code, written, report } = await run(['--grow', '--target', 'tires', '--minutes', '1'], 500)
    expect(code).toBe(1)
    expect(report.growth?.['tires']).toMatchObject({ findings: 5, blocks: 0, kept: written.get('tires')?.length })
    const failed = report.findings.map(({ file }) => readFileSync(file).toString('hex'))
    const kept = (written.get('tires') ?? []).map(input => Buffer.from(input).toString('hex'))
    expect(kept.length).toBeGreaterThan(0)
    expect(kept.filter(input => failed.includes(input))).toEqual([])
  }, 60_000)

  it('fails where its time was over before it began with each target, of which it knows nothing', async () => {
    const names = Array.from({ length: 3 * availableParallelism() }, (_, index) => `sound ${index}`)
    const target = `({ group: 'texts', summary: '', seeds: () => [new Uint8Array(64)], run: () => undefined })`
    const code = `export const targets = ${JSON.stringify(names)}.map(name => ({ name, ...${target} }))`
    const module = `data:text/javascript,${encodeURIComponent(code)}`
    const { targets: many } = (await import(module)) as { targets: readonly Target[] }
    const { code: exit, report } = await run(['--grow', '--minutes', '1e-9'], undefined, many, module)
    expect(exit).toBe(1)
    const grown = Object.keys(report.growth ?? {}).length
    expect(grown).toBeGreaterThan(0)
    expect(grown).toBeLessThan(names.length)
    const without = { name: 'targets that were not grown', value: names.length - grown, ok: false }
    expect(report.checks).toContainEqual(expect.objectContaining(without))
  }, 60_000)

  it('reaches more of a parser than its seeds, and keeps few inputs for that', async () => {
    const { grown, failures } = await growHere(poor)
    expect(failures).toEqual([])
    expect(grown.tried).toBeGreaterThan(0)
    expect(grown.after).toBeGreaterThan(grown.before)
    expect(grown.inputs.length).toBeGreaterThan(0)
    expect(grown.inputs.length).toBeLessThanOrEqual(60)
  }, 60_000)

  it('mutates no input that fails, and looks on for others that reach what only that has', async () => {
    const { grown, failures } = await growHere({
      ...poor,
      run: (input, random) => {
        const outcome = poor.run(input, random)
        if (input.length % 7 === 3) throw new TypeError(`${input.length} bytes`)
        return outcome
      }
    })
    expect(failures.length).toBeGreaterThan(0)
    expect(failures.every(({ input, what }) => input.length % 7 === 3 && what.includes('bytes'))).toBe(true)
    expect(grown.inputs.filter(({ length }) => length % 7 === 3)).toEqual([])
  }, 60_000)
})

const nbd = targets.find(({ name }) => name === 'nbd') as Target
const poor: Target = { ...nbd, seeds: () => nbd.seeds().slice(2) }

/** Without a thread of its own. */
async function growHere(target: Target) {
  const failures: (Failure & { readonly input: Uint8Array })[] = []
  const options: GrowOptions = { seed: 1, ms: 2_000, known: [], from: 1, fewest: true, failed: [] }
  const grown = await grow(target, options, {
    begins() {},
    ends() {},
    kept() {},
    failed: (input, failure) => void failures.push({ ...failure, input })
  })
  return { grown, failures }
}
