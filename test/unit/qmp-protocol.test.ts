import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DiapauseError } from '../../node/errors.ts'
import { LineSplitter, parseQmpLine } from '../../node/hypervisor/qmp-protocol.ts'

describe('lines of QMP', () => {
  it('come out the same however the bytes are cut into chunks', () => {
    const text = fc.array(fc.constantFrom('a', 'bc', '\n', '\r\n', 'é'), { maxLength: 60 }).map(parts => parts.join(''))
    fc.assert(
      fc.property(text, fc.array(fc.nat(7), { minLength: 1, maxLength: 40 }), (written, sizes) => {
        const bytes = Buffer.from(written)
        const splitter = new LineSplitter()
        const lines: string[] = []
        for (let at = 0, n = 0; at < bytes.length; n++) {
          const size = (sizes[n % sizes.length] ?? 0) + 1
          for (const line of splitter.push(bytes.subarray(at, at + size))) lines.push(Buffer.from(line).toString())
          at += size
        }
        expect(lines).toEqual(written.split(/\r?\n/).slice(0, -1))
      })
    )
  })

  it('do not change when the memory of their chunk is used again', () => {
    const splitter = new LineSplitter()
    const chunk = Buffer.from('hal')
    splitter.push(chunk)
    chunk.fill('x')
    expect(splitter.push(Buffer.from('f\n')).map(line => Buffer.from(line).toString())).toEqual(['half'])
  })

  it('are bounded, in one chunk and over many', () => {
    const tooLong = { code: 'QMP_LINE_TOO_LONG' }
    const refuses = (run: () => void) => expect(codeOf(run)).toBe(tooLong.code)
    expect(new LineSplitter(4).push(Buffer.from('abcd\nabcd\n'))).toHaveLength(2)
    refuses(() => new LineSplitter(4).push(Buffer.from('abcde\n')))
    const splitter = new LineSplitter(4)
    splitter.push(Buffer.from('abcd'))
    refuses(() => splitter.push(Buffer.from('e')))
  })
})

describe('a QMP message', () => {
  const parse = (text: string) => parseQmpLine(Buffer.from(text))

  it('is a greeting, a reply, a refusal or an event', () => {
    expect(parse('{"QMP":{"version":{}}}').kind).toBe('greeting')
    expect(parse('{"return":[1],"id":3}')).toEqual({ kind: 'reply', id: 3, value: [1] })
    expect(parse('{"error":{"class":"C","desc":"d"},"id":3}')).toMatchObject({
      kind: 'refusal',
      id: 3,
      description: 'd'
    })
    expect(parse('{"event":"STOP"}')).toEqual({ kind: 'event', name: 'STOP', data: {} })
  })

  it('is one of these or QMP_MALFORMED, whatever the bytes', () => {
    const kinds = ['greeting', 'reply', 'refusal', 'event']
    const pieces = fc.record(
      {
        id: fc.jsonValue(),
        return: fc.jsonValue(),
        event: fc.jsonValue(),
        data: fc.jsonValue(),
        error: fc.oneof(fc.jsonValue(), fc.record({ class: fc.jsonValue(), desc: fc.jsonValue() })),
        QMP: fc.jsonValue()
      },
      { requiredKeys: [] }
    )
    const line = fc.oneof(
      fc.uint8Array({ maxLength: 100 }),
      pieces.map(value => Buffer.from(JSON.stringify(value)))
    )
    fc.assert(
      fc.property(line, bytes => {
        let outcome = ''
        const code = codeOf(() => {
          outcome = parseQmpLine(bytes).kind
        })
        expect(code === 'QMP_MALFORMED' || kinds.includes(outcome)).toBe(true)
      }),
      { numRuns: 2_000 }
    )
  })
})

function codeOf(run: () => void): string | undefined {
  try {
    run()
  } catch (error) {
    return error instanceof DiapauseError ? error.code : String(error)
  }
  return undefined
}
