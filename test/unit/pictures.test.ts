/** Pictures of the documentation: they are what is drawn now, light, and said in words for those who do not see them. */
import { readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { XMLValidator } from 'fast-xml-parser'
import { describe, expect, it } from 'vitest'
import { momentsIn } from '../pictures/failover.ts'
import { pictures } from '../pictures/pictures.ts'

const root = join(import.meta.dirname, '../..')
const readme = readFileSync(join(root, 'README.md'), 'utf8')

describe.each(pictures(readme))('$file', ({ file, drawn }) => {
  it('is what is drawn now: npm run pictures', () => {
    expect(readFileSync(join(root, file), 'utf8')).toBe(drawn)
  })

  it('is light and well formed, asks for nothing from elsewhere, and has words in its place', () => {
    expect(XMLValidator.validate(drawn)).toBe(true)
    expect(drawn.length).toBeLessThan(10_000)
    expect(drawn.replace('http://www.w3.org/2000/svg', '')).not.toMatch(/https?:|href|<script/)
    expect(/<title>(.*)<\/title>/.exec(drawn)?.[1]?.length).toBeGreaterThan(80)
  })

  it('is shown with words in its place by README and by that of its folder', () => {
    const folder = readFileSync(join(root, file, '../README.md'), 'utf8')
    const shown = (page: string, path: string): string =>
      new RegExp(`!\\[([^\\]]+)\\]\\(${path}\\)`).exec(page)?.[1] ?? ''
    expect(shown(readme, file).length).toBeGreaterThan(20)
    expect(shown(folder, basename(file)).length).toBeGreaterThan(20)
  })
})

describe('the failover that is drawn', () => {
  it('has the moments that README prints, in their order', () => {
    const moments = momentsIn(readme)
    expect(moments.map(({ atMs }) => atMs)).toEqual(moments.map(({ atMs }) => atMs).sort((a, b) => a - b))
    expect(moments[0]).toMatchObject({ atMs: 0, what: expect.stringContaining('kill -9') as string })
    expect(moments.at(-1)?.what).toMatch(/has all its pages$/)
    expect(() => momentsIn('nothing')).toThrow('README shows no failure of the demo')
  })
})
