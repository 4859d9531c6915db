import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { bounded, type Sample } from '../chaos/bounds.ts'
import { type End, lastCode, MAY_END, unasked } from '../chaos/ends.ts'
import { FAULTS } from '../chaos/faults/list.ts'

const ROOT = join(import.meta.dirname, '../..')

describe('what a peer takes', () => {
  const samples = (
    rss: (i: number) => number,
    stored: (i: number) => number = () => 40,
    loopMs: (i: number) => number = () => 22
  ): Sample[] =>
    Array.from({ length: 60 }, (_, i) => ({
      peer: 'p1',
      pid: 7,
      atMs: 1_000 * i,
      rssMiB: rss(i),
      anonMiB: 80,
      heapMiB: 40,
      heapTakenMiB: 60,
      externalMiB: 20,
      descriptors: 80,
      vms: 0,
      restores: 0,
      disk: 0.2,
      storedMiB: stored(i),
      answerMs: 10,
      loopMeanMs: loopMs(i),
      loopP99Ms: 4 * loopMs(i)
    }))
  const found = (...given: Parameters<typeof samples>) => bounded(['p1'], samples(...given))

  it('may go up and down', () => {
    expect(found(i => 150 + 40 * Math.sin(i))).toEqual([])
  })

  it('may not be more than its bound, at any time', () => {
    expect(found(i => (i === 7 ? 5_000 : 150))).toEqual(['p1: resident memory (MiB) is 5000, above 768'])
  })

  it('may not grow and grow', () => {
    expect(found(i => 100 + 5 * i)).toEqual([expect.stringContaining('p1: resident memory (MiB) grew from')])
  })

  it('may take more in a life in which it has run VMs, whose memory it keeps for the next, and may not grow within one', () => {
    const by = (as: (i: number) => Partial<Sample>): string[] =>
      bounded(
        ['p1'],
        samples(() => 240).map((sample, i) => ({ ...sample, ...as(i) }))
      )
    const late = (i: number) => i >= 30
    expect(by(i => ({ vms: late(i) ? 1 : 0, rssMiB: late(i) ? 560 : 240 }))).toEqual([])
    expect(by(i => ({ vms: i === 30 ? 1 : 0, rssMiB: late(i) ? 560 : 240 }))).toEqual([])
    expect(by(i => ({ restores: late(i) ? 1 : 0, rssMiB: late(i) ? 560 : 240 }))).toEqual([])
    expect(by(i => ({ pid: late(i) ? 8 : 7, rssMiB: late(i) ? 560 : 240 }))).toEqual([])
    const growing = [expect.stringMatching(/^p1: resident memory \(MiB\) grew from .* within one life of it$/)]
    expect(by(i => ({ rssMiB: late(i) ? 560 : 240 }))).toEqual(growing)
    expect(by(i => ({ vms: late(i) ? 1 : 0, rssMiB: 240 + 10 * Math.max(0, i - 30) }))).toEqual(growing)
    expect(by(i => ({ pid: late(i) ? 8 : 7, rssMiB: 240 + 10 * Math.max(0, i - 30) }))).toEqual(growing)
    const open = [expect.stringMatching(/^p1: open descriptors grew from .* within one life of it$/)]
    expect(by(i => ({ descriptors: 80 + 5 * Math.max(0, i - 30), vms: late(i) ? 1 : 0 }))).toEqual(open)
  })

  it('may be some images more on its disk, as many as streams allow, and not one more with every epoch', () => {
    const steady = () => 150
    expect(found(steady, i => (i < 5 ? 40 : i < 22 ? 80 : 122))).toEqual([])
    expect(found(steady, i => 40 + 4 * i)).toEqual([expect.stringContaining('p1: what it stores (MiB) grew from')])
  })

  it('may be late at no time by more than its bound, nor by more and more, and must say how late it is', () => {
    const steady = () => 150
    const late = (loopMs: (i: number) => number) => found(steady, undefined, loopMs)
    expect(late(i => (i === 7 ? 300 : 22))).toEqual(['p1: delay of the event loop (ms, 99 %) is 1200, above 1000'])
    expect(late(i => 22 + i)).toEqual([expect.stringContaining('p1: delay of the event loop (ms, mean) grew from')])
    expect(late(() => Number.NaN)).not.toEqual([])
  })

  it('is not bounded where nobody has seen it', () => {
    expect(
      bounded(
        ['p1', 'p2'],
        samples(() => 150)
      )
    ).toEqual(['p2: what it takes was never seen'])
  })
})

describe('the end of a peer', () => {
  const under = (fault: string) => [{ fault, host: 1, atMs: 0, lastsMs: 5_000, seed: 1 }]
  const end = (how: string, more: Partial<End> = {}): End => ({
    host: 'h2',
    how,
    code: undefined,
    asked: false,
    ...more
  })
  const known = end('exit code 1', { code: 'REGISTER_STORE' })

  it('is its own where nobody has ended it', () => {
    const told = (how: string) => [`the peer of h1 ended by itself: ${how}`]
    for (const how of ['exit code 1', 'SIGSEGV', 'SIGKILL'])
      expect(unasked(end(how, { host: 'h1' }), under('failing-disk'))).toEqual(told(how))
    expect(unasked({ ...known, host: 'h1' }, under('failing-disk'))).toEqual(told('exit code 1'))
  })

  it('is not where it was told to stop, was killed, or says why it cannot go on with what it stands on', () => {
    expect(unasked(end('exit code 0', { asked: true }), [])).toEqual([])
    expect(unasked(end('SIGKILL', { asked: true }), [])).toEqual([])
    expect(unasked(end('SIGKILL'), under('kill-peer'))).toEqual([])
    expect(unasked(end('SIGKILL'), under('short-of-memory'))).toEqual([])
    expect(unasked(known, under('failing-disk'))).toEqual([])
  })

  it('is a crash whatever is wrong with its host where it is by a signal, or by an error that nobody has thought of', () => {
    for (const how of ['SIGSEGV', 'SIGABRT', 'SIGKILL']) expect(unasked(end(how), under('full-disk'))).toHaveLength(1)
    expect(unasked(end('exit code 1'), under('full-disk'))).toEqual([
      'the peer of h2 ended by an error that it does not know: exit code 1'
    ])
  })

  it('is excused by faults that there are, and by none of networks, kills and clocks', () => {
    const excused = [...FAULTS.keys()].filter(fault => unasked(known, under(fault)).length === 0)
    expect(excused.sort()).toEqual([
      'failing-disk',
      'failing-fsync',
      'full-disk',
      'hung-disk',
      'no-descriptors',
      'read-only-disk',
      'register-rot',
      'register-truncation',
      'short-of-memory'
    ])
  })

  it('is not excused by an error that is of another thing than the fault on its host', () => {
    const by = (code: string, fault: string) => unasked(end('exit code 2', { code }), under(fault))
    const told = ['the peer of h2 ended by an error that is of no fault of its host: exit code 2 [LISTEN_IN_USE]']
    expect(by('LISTEN_IN_USE', 'failing-disk')).toEqual(told)
    for (const code of ['LISTEN_FAILED', 'NOT_A_MEMBER', 'TRANSPORT_DISCONNECTED'])
      expect(by(code, 'full-disk'), code).toHaveLength(1)
    expect(by('STORE_FULL', 'full-disk')).toEqual([])
    expect(by('STORE_IO', 'register-rot')).toHaveLength(1)
    expect(by('LISTEN_FAILED', 'no-descriptors')).toEqual([])
    expect(
      unasked(end('exit code 1', { code: 'STORE_IO' }), [...under('register-rot'), ...under('hung-disk')])
    ).toEqual([])
  })

  it('is excused by codes that there are', () => {
    const sources = ['node', 'protocols'].flatMap(folder =>
      readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
        .filter(name => name.endsWith('.ts'))
        .map(name => readFileSync(join(ROOT, folder, name), 'utf8'))
    )
    const codes = new Set([...MAY_END.values()].flatMap(each => [...each]))
    expect([...codes].filter(code => !sources.some(source => source.includes(`'${code}'`)))).toEqual([])
  })

  it('has the code of the error that it ended with, if it is one of its own', () => {
    const json = '{"level":"info","msg":"a line"}\n'
    const told = "diapause: cannot use the data folder /x: EROFS, open '/x/[a]' [DATA_DIR_UNUSABLE]\n"
    expect(lastCode(`${json}${told}`)).toBe('DATA_DIR_UNUSABLE')
    expect(lastCode(`${json}${told}  → mount it for writing\n`)).toBe('DATA_DIR_UNUSABLE')
    expect(lastCode(`${told}${json}`)).toBe('DATA_DIR_UNUSABLE')
    expect(lastCode(`${json}diapause: TypeError: x is not a function\n    at f (file:///a.ts:1:2)\n`)).toBeUndefined()
    expect(lastCode(`${told}[Error: EROFS] {\n  errno: -30,\n}\n\nNode.js v24.0.0\n`)).toBeUndefined()
    expect(lastCode('')).toBeUndefined()
  })
})
