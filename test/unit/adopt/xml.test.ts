import { describe, expect, it } from 'vitest'
import { attributeOf, childOf, MAX_FILE_CHARACTERS, parseXml } from '../../../node/edge/adopt/xml.ts'

const refused = expect.objectContaining({ code: 'ADOPT_XML' }) as Error

describe('XML of a stranger', () => {
  it('is a tree of elements, with the five entities of XML and no others', () => {
    const root = parseXml(
      `<?xml version="1.0"?><!-- x --><a b='1 &lt; 2'> t&amp;t &#65;&#x42; &nbsp;<c/><![CDATA[<d>]]></a>`
    )
    expect(attributeOf(root, 'b')).toBe('1 < 2')
    expect(root.text).toContain('t&t AB &nbsp;')
    expect(childOf(root, 'c')).toMatchObject({ children: [], text: '' })
    expect(childOf(root, 'd')).toBeUndefined()
  })

  it('names nothing that every object has', () => {
    const root = parseXml('<a x="1"/>')
    for (const name of ['constructor', 'toString', '__proto__']) expect(attributeOf(root, name)).toBeUndefined()
    for (const name of ['constructor', '__proto__']) expect(() => parseXml(`<a><${name}/></a>`)).toThrow(refused)
  })

  it('has no document type: entities could be anything, or everything', () => {
    for (const text of ['<!DOCTYPE a><a/>', `<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>`]) {
      expect(() => parseXml(text)).toThrow(refused)
    }
  })

  it('is refused where it is no XML, too long or too deep', () => {
    const deep = 20_000
    const wrong = ['<a', '<a></b>', 'a', '<a b=1/>', `${'<a>'.repeat(deep)}${'</a>'.repeat(deep)}`, '<a>'.repeat(deep)]
    for (const text of [...wrong, `<a>${' '.repeat(MAX_FILE_CHARACTERS)}</a>`])
      expect(() => parseXml(text)).toThrow(refused)
  })
})
