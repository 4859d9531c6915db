import { describe, expect, it } from 'vitest'
import { WireLog } from '../hosts/wire-log.ts'

const line = (atS: number, sequence: number, bytes: number, flag = '-', port = 5000) =>
  `${atS}.000000000 10.77.0.1 10.77.0.2 ${port} ${sequence} ${bytes} ${flag}`

function logOf(...lines: string[]) {
  const log = new WireLog()
  for (const each of lines) log.take(each)
  return log.connections('10.77.0.1', '10.77.0.2')
}

describe('what was seen on the wire', () => {
  it('counts bytes that are sent again once, and of a segment that overlaps what came before the new ones', () => {
    const [connection] = logOf(
      line(1, 99, 0, 'S'),
      line(2, 100, 50),
      line(3, 100, 50),
      line(4, 120, 50),
      line(5, 170, 10)
    )
    expect(connection?.sent).toEqual([
      { atMs: 2000, bytes: 50 },
      { atMs: 4000, bytes: 20 },
      { atMs: 5000, bytes: 10 }
    ])
  })

  it('goes on counting where sequence numbers go round', () => {
    const start = 2 ** 32 - 30
    const [connection] = logOf(line(1, start - 1, 0, 'S'), line(2, start, 50), line(3, start, 50), line(4, 20, 10))
    expect(connection?.sent.map(({ bytes }) => bytes)).toEqual([50, 10])
  })

  it('tells connections in the order in which they were opened, a SYN sent again being the same one', () => {
    const opened = logOf(
      line(1, 10, 0, 'S', 6000),
      line(2, 10, 0, 'S', 6000),
      line(3, 10, 0, 'S', 5000),
      line(4, 11, 7, '-', 6000)
    )
    expect(opened.map(({ port, openedMs }) => [port, openedMs])).toEqual([
      [6000, 1000],
      [5000, 3000]
    ])
  })

  it('knows a later connection on the same port for another one', () => {
    const again = logOf(line(1, 10, 0, 'S'), line(2, 11, 5), line(3, 5000, 0, 'S'), line(4, 5001, 6))
    expect(again.map(({ openedMs, sent }) => [openedMs, sent])).toEqual([[3000, [{ atMs: 4000, bytes: 6 }]]])
  })

  it('refuses what is not a line of its observer', () => {
    expect(() => logOf('1.5 10.77.0.1 10.77.0.2 5000 1 2 -')).toThrow(TypeError)
  })
})
