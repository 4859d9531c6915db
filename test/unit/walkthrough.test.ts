/** What a script reads on a page of documentation, and when it holds what was printed for what the page says. */
import { describe, expect, it } from 'vitest'
import { stepsOf } from '../walkthrough/page.ts'
import { filled, matched } from '../walkthrough/printed.ts'

const fenced = (language: string, ...lines: string[]): string => ['```' + language, ...lines, '```'].join('\n')
const page = (...blocks: string[]): string => blocks.join('\n\n')

describe('a page', () => {
  const hosts = ['oak', 'elm']

  it('is the steps that it tells: where, what, what that prints, and whether it is typed again', () => {
    const text = page(
      '# First',
      'Words **of** no host.',
      'On **oak** and\n**elm**:',
      fenced('sh', 'one', '', 'two'),
      'On **elm**, again\nuntil it is:',
      fenced('sh', 'three'),
      fenced('text', 'yes'),
      '## Second',
      'On **oak**, in a terminal of its own:',
      fenced('sh', 'up'),
      'On **oak**, press Ctrl-C in that terminal. Wait. Then on **elm**:',
      fenced('sh', 'four')
    )
    const step = { kind: 'typed', prints: undefined, again: false }
    expect(stepsOf(text, hosts)).toEqual([
      { ...step, line: 8, heading: 'First', hosts: ['oak', 'elm'], commands: 'one\n\ntwo' },
      { ...step, line: 17, heading: 'First', hosts: ['elm'], commands: 'three', prints: 'yes', again: true },
      { ...step, line: 29, heading: 'Second', hosts: ['oak'], commands: 'up', kind: 'left open' },
      { ...step, line: 33, heading: 'Second', hosts: ['oak'], commands: '', kind: 'Ctrl-C' },
      { ...step, line: 35, heading: 'Second', hosts: ['elm'], commands: 'four' }
    ])
  })

  it.each([
    ['commands without a word before them', page('# A', fenced('sh', 'x')), 'line 3: nothing says where'],
    ['a host that there is not', page('On **yew**:', fenced('sh', 'x')), 'line 1: it does not say on which host'],
    ['a block of something else', page('On **oak**:', fenced('toml', 'x = 1')), 'line 3: a block of "toml"'],
    ['output of nothing', page('It prints', fenced('text', 'x')), 'line 3: no commands before it print this'],
    ['a block without an end', page('On **oak**:', '```sh\nx'), 'line 3: the block has no end']
  ])('is refused with %s', (_, text, message) => {
    expect(() => stepsOf(text, hosts)).toThrow(message)
  })
})

describe('what commands print', () => {
  const fits = (says: string, output: string) => matched(says, output, [], new Map()) !== undefined

  it('is what the page says, however columns and lines are folded', () => {
    expect(fits('vm  host\nvm1 oak', '  vm   host\n  vm1  oak  \n')).toBe(true)
    expect(fits('a b\nc', 'a\nb c')).toBe(true)
    expect(fits('vm1 oak', 'vm1 elm')).toBe(false)
    expect(fits('vm1 oak', 'vm1 oak and more')).toBe(false)
    expect(fits('a.c', 'abc')).toBe(false)
  })

  it('may have anything where the page has a gap: within a line, or whole lines', () => {
    expect(fits('vm1 … running', 'vm1 oak running')).toBe(true)
    expect(fits('epoch … of bank', 'epoch 3 of\n bank')).toBe(true)
    expect(fits('vm1 … running', 'vm1 oak lost\nvm2 elm running')).toBe(false)
    expect(fits('a\n…\nb\n…', 'a\nb')).toBe(true)
    expect(fits('…\nb', 'x\ny\nb')).toBe(true)
    expect(fits('a\n…', 'a\nx\ny')).toBe(true)
    expect(fits('a\n…\nb', 'a\nxb')).toBe(false)
  })

  it('gives the words of the page what they stand for, which stays', () => {
    const names = ['TOKEN', 'OTHER-TOKEN']
    const found = matched('token TOKEN\nOTHER-TOKEN', 'token a$1b\nxyz', names, new Map())
    expect(found).toEqual(new Map(names.map((name, i): [string, string] => [name, ['a$1b', 'xyz'][i] ?? ''])))
    expect(matched('TOKEN', 'xyz', names, found ?? new Map())).toBeUndefined()
    expect(matched('TOKEN, still', 'a$1b, still', names, found ?? new Map())).toBeDefined()
    expect(filled('join TOKEN OTHER-TOKEN TOKENS', names, found ?? new Map())).toBe('join a$1b xyz TOKENS')
    expect(() => filled('join TOKEN', names, new Map())).toThrow('TOKEN is used before')
  })
})
