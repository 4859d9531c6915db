import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ConsoleWatcher } from '../demo/consoles.ts'
import { fnv32 } from '../guest/console.ts'

const line = (kind: string, vm: number, money: number) => {
  const body = `${kind} vm=${vm} nonce=00000000000000a${vm} uptimeMs=1 money=${money} sent=- recv=- gaps=0 doubles=0 broken=0 bad=0 conns=0 stallMs=0.0`
  return `${body} sum=${fnv32(body).toString(16).padStart(8, '0')}\n`
}

describe('watching consoles', () => {
  let dir: string
  let now: number
  const folder = (peer: string) => join(dir, peer)
  const watch = () => new ConsoleWatcher(['p1', 'p2', 'p3'].map(folder), 'bank', () => now)
  const print = (peer: string, vm: number, text: string, group = 'bank') => {
    mkdirSync(folder(peer), { recursive: true })
    appendFileSync(join(folder(peer), `${group}.vm${vm}.log`), text)
  }

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'diapause-consoles-'))
    now = 1000
  })
  afterEach(() => rmSync(dir, { recursive: true }))

  it('reads a line once it is whole, however it comes, and follows a VM to the file of another peer', () => {
    const watcher = watch()
    watcher.poll()
    const text = line('BANK', 1, 5)
    print('p1', 1, text.slice(0, 30))
    watcher.poll()
    expect(watcher.latest.size).toBe(0)
    print('p1', 1, text.slice(30) + line('BANK', 1, 6).slice(0, 40))
    watcher.poll()
    expect(watcher.latest.get(1)?.latest.money).toBe(5)
    print('p2', 1, line('BANK', 1, 7))
    watcher.poll()
    expect(watcher.latest.get(1)?.latest.money).toBe(7)
  })

  it('leaves other groups alone and keeps audits by their id', () => {
    const watcher = watch()
    print('p1', 1, line('BANK', 1, 5), 'bank2')
    print('p1', 2, line('AUDIT id=4', 2, 8))
    watcher.poll()
    expect(watcher.latest.get(1)).toBeUndefined()
    expect(watcher.audits(4)).toMatchObject([{ vm: 2, money: 8 }])
    expect(watcher.audits(3)).toEqual([])
  })

  it('measures the longest silence of a VM that ended since it was told to count', () => {
    const watcher = watch()
    const at = (ms: number, peer: string, vm: number) => {
      now = ms
      print(peer, vm, line('BANK', vm, 1))
      watcher.poll()
    }
    at(1000, 'p1', 1)
    at(9000, 'p1', 1) // long, but before
    at(9100, 'p2', 2)
    now = 9200
    watcher.countSilence()
    at(9300, 'p2', 2)
    at(9900, 'p3', 1)
    expect(watcher.longestSilenceMs).toBe(900)
  })
})
