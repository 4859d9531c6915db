import { appendFile, mkdir, mkdtemp, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ConsoleLogs, lookAtSizes } from '../../node/host/console-log.ts'
import { clock, memoryLog } from '../contract/real-clock.ts'

describe('what a VM has said', () => {
  let runDir: string
  let folder: string
  let file: string

  beforeEach(async () => {
    runDir = await mkdtemp(join(tmpdir(), 'console-'))
    folder = join(runDir, 'console')
    file = join(folder, 'g.vm1.log')
    await mkdir(folder)
  })
  afterEach(() => rm(runDir, { recursive: true, force: true }))

  const read = async (from: number) =>
    new ConsoleLogs(runDir, clock, 1 << 20).read({ group: 'g', vm: 'vm1', from, waitMs: 0 })

  it('is kept but for its beginning, however long it goes on, and stays where it was for who reads on', async () => {
    const log = memoryLog()
    const keptBytes = 64 << 10
    for (let line = 0; line < 100; line++) {
      await appendFile(file, Buffer.alloc(10_000, 97 + (line % 26)))
      await lookAtSizes({ folder, clock, log, keptBytes })
      expect((await stat(file)).blocks * 512).toBeLessThan(2 * keptBytes + 20_000)
    }
    expect((await stat(file)).size).toBe(1_000_000)
    const { from, bytes } = await read(-keptBytes)
    expect(from).toBe(1_000_000 - keptBytes)
    expect(bytes).not.toContain(0)
    expect(log.lines).toEqual([])
  })

  it('is whole where it is little', async () => {
    await writeFile(file, 'hello')
    await lookAtSizes({ folder, clock, log: memoryLog() })
    expect(Buffer.from((await read(0)).bytes).toString()).toBe('hello')
  })

  it('is read from where it is still there, by who asks for more', async () => {
    await writeFile(file, '')
    await truncate(file, 40 << 20) // as long as one whose beginning has gone
    await appendFile(file, 'the end')
    const { from } = await read(0)
    expect(from).toBe((40 << 20) + 7 - (16 << 20))
  })
})
