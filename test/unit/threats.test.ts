/** The threat model says of each line which test shows it. Is there one? */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const root = join(import.meta.dirname, '../..')
const MODEL = 'protocols/threats/README.md'

interface Row {
  readonly what: string
  readonly shown: string
}

/** Rows of all tables, without their heads. */
function rowsOf(markdown: string): Row[] {
  const lines = markdown.split('\n')
  return lines.flatMap((line, at) => {
    const isHead = /^\|[-| ]+\|$/.test(lines[at + 1] ?? '')
    if (!line.startsWith('|') || isHead || /^\|[-| ]+\|$/.test(line)) return []
    const cells = line.split('|').slice(1, -1)
    return [{ what: cells[0]?.trim() ?? '', shown: cells.at(-1)?.trim() ?? '' }]
  })
}

/** `FILE`: title · title · `FILE`: title */
function testsOf({ shown }: Row): { readonly file: string; readonly title: string }[] {
  let file = ''
  return shown.split(' · ').flatMap(part => {
    const [, named, first] = /^`(test\/[^`]+)`: (.+)$/.exec(part) ?? []
    file = named ?? file
    return file === '' ? [] : [{ file, title: (first ?? part).trim() }]
  })
}

/** Whatever stands in `it(…`, `test(…`, `it.each(…)(…`. */
function titlesIn(source: string): string[] {
  const found = source.matchAll(
    /\b(?:it|test)(?:\.each\((?:[^()]|\([^()]*\))*\))?\(\s*(['"`])((?:\\.|(?!\1)[^\\])*)\1/gs
  )
  return [...found].map(([, , title = '']) => title.replaceAll(/\\(['"`])/g, '$1'))
}

const rows = rowsOf(readFileSync(join(root, MODEL), 'utf8'))

test('every line of the threat model names the tests that show it, and they exist', () => {
  expect(rows.length).toBeGreaterThan(60)
  const wrong = rows.flatMap(row => {
    const tests = testsOf(row)
    if (tests.length === 0) return [`${row.what}: names no test`]
    return tests.flatMap(({ file, title }) => {
      if (!existsSync(join(root, file))) return [`${row.what}: there is no ${file}`]
      return titlesIn(readFileSync(join(root, file), 'utf8')).includes(title) ? [] : [`${file} has no "${title}"`]
    })
  })
  expect(wrong).toEqual([])
})

test('a title is found however its test is written', () => {
  const source = `it('a', () => {})\n  test("b's", async () => {})\nit.each([10, 5])('c %i', n => {})\nit.each(FAULTS)(\n  'd', x => {})`
  expect(titlesIn(source)).toEqual(['a', "b's", 'c %i', 'd'])
  const shown = '`test/a.test.ts`: one · two: three · `test/b.test.ts`: four'
  expect(testsOf({ what: '', shown })).toEqual([
    { file: 'test/a.test.ts', title: 'one' },
    { file: 'test/a.test.ts', title: 'two: three' },
    { file: 'test/b.test.ts', title: 'four' }
  ])
})
