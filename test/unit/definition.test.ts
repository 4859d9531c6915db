/** Definitions in YAML: what is read, what is refused and where, and what editors are told of them. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv } from 'ajv'
import { describe, expect, it } from 'vitest'
import { parse as parseYaml } from 'yaml'
import { definitionJsonSchema } from '../../config/definition-schema.ts'
import { MAX_DEFINITION_CHARACTERS, parseDefinition } from '../../config/definition.ts'
import { problemText } from '../../config/words.ts'

const folder = join(import.meta.dirname, '../../config')
const example = readFileSync(join(folder, 'examples/group.yaml'), 'utf8')
const whole = example.replaceAll(/^( *)#(?=\w+: )/gm, '$1')
const problems = (text: string): string[] => {
  const read = parseDefinition(text)
  return read.ok ? [] : read.problems.map(problemText)
}
const minimal =
  'id: shop\nvms:\n  - { id: till, mac: 52:54:00:00:00:01, memoryMiB: 64, kernel: /k, initrd: /i, append: "" }\n'

describe('a definition', () => {
  it('is YAML, and JSON as well', () => {
    const read = parseDefinition(minimal)
    expect(read).toMatchObject({ ok: true, value: { id: 'shop', owners: {}, outputCommit: false, openFlow: false } })
    expect(parseDefinition(JSON.stringify(parseYaml(minimal)))).toEqual(read)
    expect(parseDefinition(whole).ok).toBe(true)
  })

  it('is told the line of each mistake, and what a key was meant to be', () => {
    const wrong = minimal.replace('id: shop', 'id: a shop\nretension: {}').replace('64', 'much')
    expect(problems(wrong)).toEqual([
      expect.stringMatching(/^line 1, id: expected a name: .*, found "a shop"$/),
      'line 4, vms[0].memoryMiB: expected a whole number from 16 to 1048576, found "much"',
      'line 2, retension: expected a known key; did you mean retention?, found an unknown key'
    ])
  })

  it('is told what YAML it is not: two keys, tabs, tags, aliases that lead nowhere or to far too much', () => {
    expect(problems(`${minimal}id: shop\n`)).toEqual(['line 4, column 1: expected YAML, found Map keys must be unique'])
    expect(problems('id:\n\t- shop\n')[0]).toMatch(/^line 2, column 1: expected YAML, found Tabs/)
    expect(problems('id: !secret shop\n')[0]).toMatch(/^line 1, column 5: expected YAML, found Unresolved tag/)
    expect(problems('id: *shop\n')[0]).toMatch(/expected YAML, found .*alias/)
    const levels = Array.from({ length: 9 }, (_, at) => `l${at + 1}: &l${at + 1} [${`*l${at}, `.repeat(9)}]`)
    expect(problems(`l0: &l0 [x]\n${levels.join('\n')}\n`)[0]).toMatch(/expected YAML, found Excessive alias/)
    expect(problems('['.repeat(20_000))).toHaveLength(1)
    expect(problems('%YAML 1.1\n---\n<<: 3\n')[0]).toMatch(/expected YAML, found Merge sources must be/)
    expect(problems('x'.repeat(MAX_DEFINITION_CHARACTERS + 1))[0]).toMatch(/^\(file\): expected at most/)
  })

  it('is told in words of YAML what is missing altogether', () => {
    expect(problems('')).toEqual(['(file): expected a mapping (key: value), found null'])
    expect(problems('id: shop\nvms: []\n')).toEqual([
      'line 2, vms: expected a list (- …) of 1 to 64, found a list of 0'
    ])
  })
})

describe('the JSON Schema of definitions', () => {
  const validate = new Ajv({ strict: false }).compile(definitionJsonSchema())

  it('is the published one (npm run diapause -- vm schema > config/definition.schema.json; npm run format)', () => {
    const published: unknown = JSON.parse(readFileSync(join(folder, 'definition.schema.json'), 'utf8'))
    expect(published).toEqual(definitionJsonSchema())
  })

  it('takes what the parser takes, and refuses a VM without a NIC, with an unknown key, or with a wrong value', () => {
    const agent = minimal.replace('kernel: ', 'guestAgent: { afterRestore: [/bin/sh, -c, relative] }, kernel: ')
    for (const text of [example, whole, minimal, agent])
      expect([validate(parseYaml(text)), validate.errors]).toEqual([true, null])
    for (const [from, to] of [
      ['mac: 52:54:00:00:00:01, ', ''],
      ['kernel', 'colonel'],
      ['64', '8'],
      ['shop', '"a shop"'],
      ['kernel: /k', 'disks: [{ sizeMiB: 8, base: { path: /b, format: raw } }]'],
      [
        'kernel: /k, initrd: /i, append: ""',
        'disks: [{ sizeMiB: 8 }, { sizeMiB: 8, base: { path: /b, format: raw } }]'
      ],
      ['kernel: ', 'objective: {}, kernel: '],
      ['kernel: ', 'guestAgent: { afterRestore: [] }, kernel: '],
      ['kernel: ', 'guestAgent: { afterRestore: [relative, /x] }, kernel: ']
    ] as const) {
      const text = minimal.replace(from, to)
      expect(validate(parseYaml(text)), text).toBe(false)
      expect(parseDefinition(text).ok, text).toBe(false)
    }
  })
})
