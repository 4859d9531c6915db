import { describe, expect, it } from 'vitest'
import { openLog } from '../../node/host/logging.ts'

function lined() {
  const lines: Record<string, unknown>[] = []
  const opened = openLog({ level: 'info', name: 'oak' }, line =>
    lines.push(JSON.parse(line) as Record<string, unknown>)
  )
  return { ...opened, lines }
}

describe('the log', () => {
  it('has a JSON object a line, with time, level and name as its description says', () => {
    const { log, lines } = lined()
    log.warn({ group: 'shop', error: 'no answer' }, 'not yet')
    const [{ time, ...line } = { time: '' }] = lines
    expect(line).toEqual({ level: 'warn', name: 'oak', group: 'shop', error: 'no answer', msg: 'not yet' })
    expect(time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
  })

  it('tells more while somebody wants it to, and then as before', () => {
    const { log, lines, toggleDebug } = lined()
    log.debug({}, 'first')
    expect(toggleDebug()).toBe('debug')
    log.debug({}, 'second')
    expect(toggleDebug()).toBe('info')
    log.debug({}, 'third')
    expect(lines.map(({ msg }) => msg)).toEqual(['the log is at debug now', 'second', 'the log is at info now'])
  })

  it('tells as much as somebody asks for, and says so while it still tells that much', () => {
    const { log, lines, logging } = lined()
    expect(logging.status()).toEqual({ level: 'info', configured: 'info' })
    expect(logging.setLevel('error')).toEqual({ level: 'error', configured: 'info' })
    log.warn({}, 'first')
    log.error({}, 'second')
    expect(logging.setLevel(undefined)).toEqual({ level: 'info', configured: 'info' })
    log.info({}, 'third')
    const changed = { kind: 'log.level', level: 'info' }
    expect(lines).toMatchObject([
      { ...changed, logLevel: 'error', before: 'info' },
      { msg: 'second' },
      { ...changed, logLevel: 'info', before: 'error' },
      { msg: 'third' }
    ])
  })

  it('has no secret, should one be given to it', () => {
    const { log, lines } = lined()
    log.info({ token: 'tell-nobody', request: { authorization: 'Bearer tell-nobody' } }, 'asked')
    expect(JSON.stringify(lines)).not.toContain('tell-nobody')
  })
})
