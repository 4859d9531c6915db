import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { conservation, fnv32, latest, parseConsole, tcpCounts } from '../guest/console.ts'

const sealed = (body: string) => `${body} sum=${fnv32(body).toString(16).padStart(8, '0')}`

const bank = (vm: number, extra: { money?: number; sent?: string; recv?: string; gaps?: number } = {}) =>
  `vm=${vm} nonce=00000000000000a${vm} uptimeMs=4321 money=${extra.money ?? 1000} sent=${extra.sent ?? '-'} recv=${extra.recv ?? '-'}` +
  ` gaps=${extra.gaps ?? 0} doubles=0 broken=0 bad=0 conns=2 stallMs=12.3`

describe('reading the console of a bank', () => {
  it('reads the very line that the C program printed', () => {
    const line =
      'BANK vm=1 nonce=2113fb234e4b60e6 uptimeMs=1505544 money=64000 sent=- recv=- gaps=0 doubles=0 broken=0 bad=0 conns=0 stallMs=0.0 sum=6b13cd66'
    expect(parseConsole(`${line}\n`)).toMatchObject([
      { kind: 'BANK', vm: 1, nonce: '2113fb234e4b60e6', uptimeMs: 1_505_544, money: 64_000, stallMs: 0 }
    ])
  })

  it('reads channels, and the id of an audit', () => {
    const [report] = parseConsole(sealed(`AUDIT id=7 ${bank(1, { sent: '2:123:4567,3:1:10', recv: '2:5:50,3:0:0' })}`))
    expect(report).toMatchObject({ kind: 'AUDIT', id: 7 })
    expect(report?.sent).toEqual(
      new Map([
        [2, { count: 123, sum: 4567 }],
        [3, { count: 1, sum: 10 }]
      ])
    )
    expect(report?.received.get(3)).toEqual({ count: 0, sum: 0 })
  })

  it('skips kernel messages between lines, and reads a line that follows a torn one on the same line', () => {
    const good = sealed(`BANK ${bank(2)}`)
    const text = `[    1.2] virtio_net: hello\r\n${good}\r\nBANK vm=2 nonce=00${good}\n[ 9.9] oops\nBANK vm=2 non`
    expect(parseConsole(text)).toHaveLength(2)
  })

  it('does not take a torn line glued to the rest of another for a report', () => {
    const first = sealed(`BANK ${bank(1, { money: 123_456 })}`)
    const second = sealed(`BANK ${bank(1, { money: 987_654 })}`)
    for (let cut = 1; cut < first.length; cut++)
      for (const report of parseConsole(first.slice(0, cut) + second.slice(cut)))
        expect([123_456, 987_654]).toContain(report.money)
    const middle = first.indexOf('456')
    expect(parseConsole(first.slice(0, middle) + second.slice(middle))).toEqual([])
  })

  it('never throws and never invents a report, whatever the text', () => {
    fc.assert(fc.property(fc.string(), text => parseConsole(text).length === 0))
    const good = sealed(`AUDIT id=1 ${bank(1, { sent: '2:1:1' })}`)
    fc.assert(
      fc.property(fc.nat(good.length - 10), fc.string({ minLength: 1, maxLength: 1 }), (at, char) => {
        fc.pre(good[at] !== char && char !== '\n' && char !== '\r')
        const mutated = good.slice(0, at) + char + good.slice(at + 1)
        return parseConsole(mutated).length === 0
      })
    )
  })

  it("finds the answer to a question about TCP's timeouts, whole, known, and to that question", () => {
    const answer = (id: number, timeouts: number) => sealed(`TCP id=${id} vm=1 timeouts=${timeouts} duplicates=2`)
    const text = `${sealed(`BANK ${bank(1)}`)}\r\nTCP id=3 vm=1 tim${answer(2, 5)}\n${answer(3, 7)}\r\n${answer(4, -1)}`
    expect([1, 2, 3, 4].map(id => tcpCounts(text, id)?.timeouts)).toEqual([undefined, 5, 7, undefined])
    expect(tcpCounts(text, 3)?.duplicates).toBe(2)
    expect(tcpCounts(answer(3, 7).replace('=7', '=8'), 3)).toBeUndefined()
  })

  it('gives the latest report of each VM', () => {
    const text = [1, 2, 1].map((vm, i) => sealed(`BANK ${bank(vm, { money: i })}`)).join('\n')
    expect([...latest(parseConsole(text))].map(([vm, report]) => [vm, report.money])).toEqual([
      [1, 2],
      [2, 1]
    ])
  })
})

describe('judging an audit', () => {
  const audit = (vm: number, extra: Parameters<typeof bank>[1], id = 1) =>
    parseConsole(sealed(`AUDIT id=${id} ${bank(vm, extra)}`))
  const one = { money: 900, sent: '2:5:300', recv: '2:4:200' }
  const two = { money: 1100, sent: '1:4:200', recv: '1:5:300' }

  it('is content when the money is all there and both ends of each channel agree', () => {
    const result = conservation([...audit(1, one), ...audit(2, two)], 2000)
    expect(result).toMatchObject({ conserved: true, money: 2000, gaps: 0, broken: 0, stallMs: 12.3, faults: [] })
  })

  it.each([
    ['money is missing', { ...two, money: 1099 }, 'hold 1999 instead of 2000'],
    ['a transfer did not arrive', { ...two, recv: '1:4:300' }, 'sent 5 transfers'],
    ['an amount changed on the way', { ...two, recv: '1:5:299' }, 'which has 5 (299)']
  ])('says so when %s', (_, changed, words) => {
    const result = conservation([...audit(1, one), ...audit(2, changed)], 2000)
    expect(result.conserved).toBe(false)
    expect(result.faults.join('\n')).toContain(words)
  })

  it('is not content with a VM that was not audited, with different audits, or with one VM twice', () => {
    expect(conservation(audit(1, one), 900).faults.join()).toContain('VM 2, which VM 1 sends to, was not audited')
    expect(conservation([...audit(1, one, 1), ...audit(2, two, 2)], 2000).conserved).toBe(false)
    expect(conservation([...audit(1, one), ...audit(1, one), ...audit(2, two)], 2900).conserved).toBe(false)
  })
})
