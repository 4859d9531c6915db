import { closeSync, openSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { LogOutput, type Write } from '../../node/host/log-output.ts'

let folder: string
const open: number[] = []
const descriptor = (path: string, flags: string): number => {
  const fd = openSync(path, flags)
  open.push(fd)
  return fd
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'log-'))
})
afterEach(async () => {
  for (const fd of open.splice(0)) closeSync(fd)
  await rm(folder, { recursive: true })
})

const pause = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))

describe('the output of a log', () => {
  it('has each line whole and in its order, what waits at the end of the process as well', async () => {
    const path = join(folder, 'log')
    const output = new LogOutput(descriptor(path, 'w'))
    const lines = Array.from({ length: 500 }, (_, i) => `line ${i}\n`)
    for (const line of lines) output.write(line)
    await vi.waitFor(() => expect(readFileSync(path, 'utf8')).toBe(lines.join('')))
    const last = new LogOutput(descriptor(path, 'a'))
    last.write('')
    last.write('last words\n')
    last.flush()
    expect(readFileSync(path, 'utf8')).toBe(`${lines.join('')}last words\n`)
  })

  it('costs whoever logs nothing where a disk has no room, and ends with its process', async () => {
    const output = new LogOutput(descriptor('/dev/full', 'w'))
    for (let i = 0; i < 10; i++) output.write('nobody can be told\n')
    await pause(20)
    output.write('and again\n')
    expect(output.flush()).toBeUndefined()
  })

  it('tries again what was not taken, keeps no more than it may meanwhile, and goes on', async () => {
    let taken = ''
    let takes = 0
    const write: Write = (_fd, bytes, offset, length, _position, done) => {
      const count = Math.min(takes, length)
      taken += bytes.toString('utf8', offset, offset + count)
      if (count > 0) done(null, count)
      else done(new Error('ENOSPC: no space left on device'), 0)
    }
    const output = new LogOutput(1, { maxBytes: 30, write, isFile: true })
    output.write('it waits\n')
    output.write('it has room\n')
    output.write('it has none any more\n')
    expect(taken).toBe('')
    takes = 5
    await vi.waitFor(() => expect(taken).toBe('it waits\nit has room\n'))
    output.write('and it goes on\n')
    await vi.waitFor(() => expect(taken).toMatch(/^it waits\nit has room\n\{.*"lost":1,.*\}\nand it goes on\n$/))
  })

  it('is written at once where it is no file, and waits for a reader that is slow, longer each time', async () => {
    let [taken, tries, room] = ['', 0, 100]
    const writeSync = (_fd: number, bytes: Buffer): number => {
      tries++
      const count = Math.min(room, bytes.length)
      if (count === 0) throw Object.assign(new Error('EAGAIN'), { code: 'EAGAIN' })
      room -= count
      taken += bytes.toString('utf8', 0, count)
      return count
    }
    const output = new LogOutput(1, { writeSync, isFile: false })
    output.write('at once\n')
    expect(taken).toBe('at once\n')
    room = 4
    output.write('in two\n')
    expect(taken).toBe('at once\nin t')
    await pause(200)
    expect(tries).toBeLessThan(9)
    room = 100
    await vi.waitFor(() => expect(taken).toBe('at once\nin two\n'))
    room = 0
    output.write('last words\n')
    const failing = tries
    room = 3
    output.flush() // there is never more room: it gives up
    expect([taken, tries > failing]).toEqual(['at once\nin two\nlas', true])
  })

  it('is nothing more where nobody reads it any more', async () => {
    let tries = 0
    const writeSync = (): number => {
      tries++
      throw Object.assign(new Error('EPIPE'), { code: 'EPIPE' })
    }
    const output = new LogOutput(1, { writeSync, isFile: false })
    for (let i = 0; i < 5; i++) output.write('nobody reads\n')
    await pause(50)
    output.flush()
    expect(tries).toBe(1)
  })
})
