import { XMLParser, XMLValidator } from 'fast-xml-parser'
import { describe, expect, it } from 'vitest'
import { type Entry, entryText, Timeline, timelineText } from '../chaos/timeline.ts'
import { timelineSvg } from '../chaos/timeline-svg.ts'

const entries: Entry[] = [
  { atMs: 0, kind: 'round', text: 'round 1' },
  { atMs: 1_234.5, kind: 'fault', host: 'h2', fault: 1, text: 'kill-host: all of it <dies>' },
  { atMs: 2_000, kind: 'epoch', host: 'h1', text: 'epoch 4 aborted: too late' },
  { atMs: 3_000, kind: 'heal', host: 'h2', fault: 1, text: 'kill-host' },
  { atMs: 9_000, kind: 'broken', text: 'money is gone' }
]

describe('the timeline', () => {
  it('is a line for each thing, with when and where', () => {
    expect(timelineText(['title'], entries).split('\n')).toEqual([
      'title',
      '',
      '     0.000 s  round         round 1',
      '     1.234 s  fault     h2  kill-host: all of it <dies>',
      '     2.000 s  epoch     h1  epoch 4 aborted: too late',
      '     3.000 s  heal      h2  kill-host',
      '     9.000 s  BROKEN        money is gone',
      ''
    ])
  })

  it('takes the time when something is added, and tells who listens', () => {
    let now = 5
    const told: string[] = []
    const timeline = new Timeline(
      () => now,
      entry => told.push(entryText(entry))
    )
    timeline.add('check', 'holds')
    now = 1_005
    timeline.add('fault', 'dies', { host: 'h1', fault: 3 })
    expect(timeline.entries).toMatchObject([{ atMs: 5 }, { atMs: 1_005, host: 'h1', fault: 3 }])
    expect(told).toEqual(['     0.005 s  check         holds', '     1.005 s  fault     h1  dies'])
  })
})

describe('its picture', () => {
  const about = { vm: 'vm1', nonce: 'a', firstSeq: 1n, lastSeq: 9n, beats: 9 }
  const svg = timelineSvg({
    title: 'a & b',
    hosts: ['h1', 'h2'],
    entries,
    stints: [
      { ...about, host: 'h1', fromMs: 0, untilMs: 1_000 },
      { ...about, host: 'h2', fromMs: 4_000, untilMs: 9_000 }
    ]
  })

  it('is well formed, whatever texts are in it', () => {
    expect(XMLValidator.validate(svg)).toBe(true)
    expect(new XMLParser().parse(svg).svg.title).toBe('a & b')
  })

  it('has a bar for the fault from its begin to its heal, and one for each copy in the colour of its host', () => {
    const rects = [...svg.matchAll(/<rect x="([\d.]+)" y="(\d+)" width="([\d.]+)" height="16" fill="(#\w+)"/g)]
    const [fault, one, two] = rects.map(([, x, y, width, fill]) => ({
      x: Number(x),
      y: Number(y),
      width: Number(width),
      fill
    }))
    const perMs = (1_200 - 64 - 12) / 9_000
    expect(fault).toMatchObject({
      x: expect.closeTo(64 + 1_234.5 * perMs, 0),
      width: expect.closeTo(1_765.5 * perMs, 0)
    })
    expect([one?.width, two?.width]).toEqual([expect.closeTo(1_000 * perMs, 0), expect.closeTo(5_000 * perMs, 0)])
    expect(one?.y).toBe(two?.y)
    expect(one?.fill).not.toBe(two?.fill)
  })
})
