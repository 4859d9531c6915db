import { describe, expect, it } from 'vitest'
import { fnv32 } from '../guest/console.ts'
import { parseSpeed } from '../guest/speed.ts'

const sealed = (body: string) => `${body} sum=${fnv32(body).toString(16).padStart(8, '0')}`

describe('reading the console of a VM that measures', () => {
  it('reads the very line that the C program printed', () => {
    expect(parseSpeed('SPEED id=0 kind=ready sum=81820e2c\r\n')).toMatchObject([{ id: 0, kind: 'ready' }])
    const [status] = parseSpeed('LOAD id=8 kind=status pages=2331 us=466107 sum=341a4f85\r\n')
    expect(status?.value('pages')).toBe(2331)
  })

  it('gives the numbers of a line by name, and NaN for a name that it has not', () => {
    const line = sealed('SPEED id=12 kind=ping medianUs=351.5 p10Us=340.0 p90Us=-1 lost=0')
    const [report] = parseSpeed(`[ 0.1] kernel says\r\n${line}\n`)
    expect(report?.id).toBe(12)
    expect(['medianUs', 'p90Us', 'lost'].map(name => report?.value(name))).toEqual([351.5, -1, 0])
    expect(report?.value('bytes')).toBeNaN()
  })

  it('leaves out a line that is torn, or glued to the rest of another', () => {
    const line = sealed('SPEED id=3 kind=stream bytes=100 got=100 us=5 again=0')
    expect(parseSpeed(line.slice(0, -3))).toEqual([])
    expect(parseSpeed(line.replace('got=100', 'got=90'))).toEqual([])
    expect(parseSpeed(`SPEED id=3 kind=str${line}`)).toHaveLength(1)
  })
})
