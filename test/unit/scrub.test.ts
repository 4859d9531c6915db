import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { Scrub, type ScrubMark } from '../../node/agents/scrub.ts'
import { ScrubMarkFile } from '../../node/host/scrub-mark.ts'
import { JumpingClock } from './jumping-clock.ts'
import { MemoryStore } from './shards-network.ts'
import { memoryLog } from './store-support.ts'

const PERIOD_MS = 1_000_000

/** 100 columns of 1,000 bytes of ten streams, and a manifest. */
async function world(mark?: ScrubMark, clock = new JumpingClock()) {
  const store = new MemoryStore()
  for (let i = 0; i < 100; i++) await store.putColumn(`g/v/1/${i % 10}`, Math.floor(i / 10), 2, new Uint8Array(1_000))
  store.streams = async () => [{ stream: 'all', bytes: 100_000 }]
  const manifest = Buffer.from('a manifest')
  const hash = createHash('sha256').update(manifest).digest('hex')
  await store.putManifest(hash, manifest)
  const checked = vi.spyOn(store, 'verifyColumn')
  const marks: ScrubMark[] = []
  const damaged = vi.fn<(stream: string, column: number) => void>()
  const refetch = vi.fn<(hash: string) => Promise<void>>(async () => {})
  const report = vi.fn<(kind: string, fields: object) => void>()
  const scrub = new Scrub({
    store,
    readMark: async () => mark,
    writeMark: async now => void marks.push(now),
    damaged,
    refetch,
    clock,
    wallMs: () => clock.now(),
    log: memoryLog(),
    report,
    periodMs: PERIOD_MS
  })
  return { scrub, store, clock, checked, marks, damaged, refetch, report, hash }
}

describe('the scrub of a store', () => {
  it('reads every column once within the period, evenly, and begins anew', async () => {
    const { scrub, clock, checked, marks, report } = await world()
    const start = clock.now()
    scrub.start()
    await clock.until(start + 0.4 * PERIOD_MS)
    expect(checked.mock.calls.length).toBeGreaterThan(40)
    expect(checked.mock.calls.length).toBeLessThan(60)
    await clock.until(start + 0.79 * PERIOD_MS)
    expect(new Set(checked.mock.calls.map(call => call.join(' '))).size).toBeGreaterThan(95)
    await clock.until(start + PERIOD_MS)
    expect(new Set(checked.mock.calls.map(call => call.join(' '))).size).toBe(100)
    expect(report).toHaveBeenCalledWith('scrub.done', { columns: 100, bytes: 100_000, damaged: 0 })
    expect(scrub.status()?.last).toMatchObject({ columns: 100, damaged: 0 })
    await clock.until(start + 1.5 * PERIOD_MS)
    expect(checked.mock.calls.length).toBeGreaterThan(150)
    expect(marks.length).toBeGreaterThan(10)
    scrub.stop()
  })

  it('tells of what is damaged, so that it is repaired: columns, and manifests that others are asked for', async () => {
    const { scrub, store, clock, checked, damaged, refetch, hash } = await world()
    checked.mockImplementation(async (stream, grid) => (stream === 'g/v/1/3' && grid === 4 ? 'damaged' : 'whole'))
    store.getManifest = async () => undefined
    const start = clock.now()
    scrub.start()
    await clock.until(start + 0.95 * PERIOD_MS)
    expect(damaged.mock.calls).toEqual([['g/v/1/3', 2]])
    expect(refetch.mock.calls).toEqual([[hash]])
    expect(scrub.status()?.last).toMatchObject({ columns: 100, damaged: 2 })
    scrub.stop()
  })

  it('goes on after a restart where it was, and makes up for the time that it was down', async () => {
    const first = await world()
    const start = first.clock.now()
    first.scrub.start()
    await first.clock.until(start + 0.4 * PERIOD_MS)
    first.scrub.stop()
    const mark = first.marks.at(-1)
    expect(mark?.columns).toBeGreaterThan(40)
    first.clock.nowMs = start + 0.7 * PERIOD_MS
    const again = await world(mark, first.clock)
    again.scrub.start()
    await first.clock.until(start + 0.9 * PERIOD_MS)
    const left = again.checked.mock.calls.slice(0, 100 - (mark?.columns ?? 0)).map(call => call.join(' '))
    expect(
      new Set([...first.checked.mock.calls.slice(0, mark?.columns).map(call => call.join(' ')), ...left]).size
    ).toBe(100)
    expect(again.scrub.status()?.last).toMatchObject({ columns: 100 })
    again.scrub.stop()
  })

  it('goes on behind what it has checked where the store could not be read for a while', async () => {
    const { scrub, store, clock, checked } = await world()
    const eachColumn = store.eachColumn.bind(store)
    let failures = 0
    store.eachColumn = async function* (after) {
      let columns = 0
      for await (const place of eachColumn(after)) {
        if (failures < 3 && columns++ === 10) {
          failures++
          throw new Error('the index cannot be read')
        }
        yield place
      }
    }
    const start = clock.now()
    scrub.start()
    await clock.until(start + 0.95 * PERIOD_MS)
    expect(failures).toBe(3)
    expect(new Set(checked.mock.calls.slice(0, 100).map(call => call.join(' '))).size).toBe(100)
    expect(scrub.status()?.last).toMatchObject({ columns: 100 })
    scrub.stop()
  })

  it('does nothing with a period of 0', async () => {
    const { store, checked } = await world()
    const clock = new JumpingClock()
    const [none, log] = [async () => undefined, memoryLog()]
    const base = { store, readMark: none, writeMark: none, damaged() {}, refetch: none, clock, wallMs: () => 0, log }
    const scrub = new Scrub({ ...base, report() {}, periodMs: 0 })
    scrub.start()
    await clock.until(PERIOD_MS)
    expect(checked).not.toHaveBeenCalled()
    expect(scrub.status()).toBeNull()
  })
})

describe('the file that says how far it is', () => {
  it('is read as it was written; one that is damaged counts as none', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'diapause-scrub-'))
    const file = new ScrubMarkFile(dir)
    expect(await file.read()).toBeUndefined()
    const mark = { startedMs: 1.5, after: { stream: 'g/v/1/1', grid: 3, column: 2 }, bytes: 5, columns: 1, damaged: 0 }
    await file.write(mark)
    expect(await file.read()).toEqual(mark)
    for (const text of ['{', '{"startedMs":"x"}']) {
      writeFileSync(join(dir, 'scrub.json'), text)
      expect(await file.read()).toBeUndefined()
    }
    rmSync(dir, { recursive: true })
  })
})
