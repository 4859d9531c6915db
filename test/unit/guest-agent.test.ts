import { mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { AgentLines, isSynced, replyOf, request, syncRequest } from '../../node/hypervisor/guest-agent-protocol.ts'
import { GuestChannel } from '../../node/hypervisor/guest-agent.ts'

const linesOf = (...chunks: (string | Uint8Array)[]) => {
  const reader = new AgentLines()
  return chunks.flatMap(chunk => reader.push(typeof chunk === 'string' ? Buffer.from(chunk, 'latin1') : chunk))
}

describe('what a guest agent says', () => {
  it('is cut into lines, of which one behind a 0xff is fresh, however it arrives', () => {
    const text = '{"return": 1}\nhalf\xff{"return": 7}\n\n{"return": {}}\n'
    const expected = [
      { fresh: false, text: '{"return": 1}' },
      { fresh: true, text: '{"return": 7}' },
      { fresh: false, text: '{"return": {}}' }
    ]
    expect(linesOf(text)).toEqual(expected)
    expect(linesOf(...text.split(''))).toEqual(expected)
  })

  it('is not kept beyond the longest line, and what follows is heard', () => {
    const long = 'x'.repeat(1 << 16)
    expect(linesOf(`${long}\n`)).toHaveLength(1)
    expect(linesOf(long, long, long, '\n', 'short\n')).toEqual([{ fresh: false, text: 'short' }])
  })

  it('answers a sync only with its number and behind a 0xff', () => {
    expect(syncRequest(5).toString('latin1')).toBe('\xff{"execute":"guest-sync-delimited","arguments":{"id":5}}\n')
    const line = (text: string, fresh = true) => ({ fresh, text })
    expect(isSynced(line('{"return": 5}'), 5)).toBe(true)
    for (const other of [line('{"return": 4}'), line('{"return": 5}', false), line('[5]'), line('{"return'), line('5')])
      expect(isSynced(other, 5)).toBe(false)
  })

  it('is an answer, a refusal in its own words, or none', () => {
    expect(request('guest-ping', {}).toString()).toBe('{"execute":"guest-ping","arguments":{}}\n')
    const reply = (text: string) => () => replyOf({ fresh: false, text }, 'guest-ping')
    expect(reply('{"return": {"pid": 1}}')()).toEqual({ pid: 1 })
    const refused = reply('{"error": {"class": "CommandNotFound", "desc": "not here"}}')
    expect(refused).toThrow(
      expect.objectContaining({ code: 'GUEST_AGENT_REFUSED', message: expect.stringMatching(/not here/) })
    )
    for (const none of ['', '{}', '[]', '{"error": 1}', '{"re'])
      expect(reply(none)).toThrow(expect.objectContaining({ code: 'GUEST_AGENT_MALFORMED' }))
  })
})

/** A clock on which nothing runs out until `pass`. */
class StillClock {
  #nowMs = 0
  readonly #timers = new Set<{ readonly atMs: number; readonly fn: () => void }>()

  now = (): number => this.#nowMs

  after = (ms: number, fn: () => void): (() => void) => {
    const timer = { atMs: this.#nowMs + ms, fn }
    this.#timers.add(timer)
    return () => void this.#timers.delete(timer)
  }

  pass(ms: number): void {
    this.#nowMs += ms
    for (const timer of this.#timers) {
      if (timer.atMs > this.#nowMs || !this.#timers.delete(timer)) continue
      timer.fn()
    }
  }
}

describe('the channel to a guest agent', () => {
  const cleanUps: (() => void)[] = []
  afterEach(() => {
    for (const cleanUp of cleanUps.splice(0)) cleanUp()
  })

  /** A channel and the guest's end of it, which is told of each request and says what it likes. */
  async function open(answer: (said: string, socket: Socket) => void) {
    const folder = mkdtempSync(join(tmpdir(), 'ga-'))
    const clock = new StillClock()
    const channel = new GuestChannel(join(folder, 'agent'), clock)
    await channel.listen()
    const socket = connect(channel.path)
    const said: string[] = []
    let waiting = () => {}
    socket.on('data', (chunk: Buffer) => {
      for (const line of chunk.toString('latin1').split('\n').filter(Boolean)) {
        said.push(line)
        answer(line, socket)
        waiting()
      }
    })
    await new Promise(resolve => socket.once('connect', resolve))
    await new Promise(resolve => setImmediate(resolve))
    cleanUps.push(() => {
      channel.close()
      socket.destroy()
      rmSync(folder, { recursive: true })
    })
    const until = async (count: number) => {
      while (said.length < count) await new Promise<void>(resolve => (waiting = resolve))
    }
    return { channel, clock, said, socket, until }
  }

  /** As an agent answers a sync; undefined where it is none. */
  const synced = (said: string): string | undefined => {
    const id = /^\xff.*"id":(\d+)/.exec(said)?.[1]
    return id && `\xff{"return": ${id}}\n`
  }
  const write = (socket: Socket, text: string) => void socket.write(Buffer.from(text, 'latin1'))

  it('asks for the time only when the agent listens, and passes over what was said to others', async () => {
    const { channel, said, socket, until } = await open((line, end) => {
      if (line.includes('guest-set-time')) write(end, '{"return": {}}\n')
    })
    let asked = 0
    const done = channel.setTime(() => {
      asked++
      return 1_700_000_000_123.4
    }, 1_000)
    await until(1)
    write(socket, '{"return": {"for": "another"}}\n{"ret\xff{"return": 999}\n')
    expect(asked).toBe(0)
    write(socket, synced(said[0] ?? '') ?? '')
    await done
    expect([asked, said[1]]).toEqual([1, '{"execute":"guest-set-time","arguments":{"time":1700000000123000000}}'])
  })

  /** A guest whose agent refuses to set the time, and whose `date` does what `date` says. */
  async function without(hwclock: string, date: (words: string) => number) {
    const guest = { nowMs: 1_000 }
    const { channel } = await open((line, end) => {
      const words = /"arg":\["-s","(.*)"\]/.exec(line)?.[1]
      if (words !== undefined) exitcode = date(words)
      const answer = line.includes('guest-set-time')
        ? `{"error": {"class": "GenericError", "desc": "${hwclock}"}}\n`
        : line.includes('guest-get-time')
          ? `{"return": ${guest.nowMs}000000}\n`
          : words === undefined
            ? `{"return": {"exited": true, "exitcode": ${exitcode}}}\n`
            : '{"return": {"pid": 1}}\n'
      write(end, synced(line) ?? answer)
    })
    let exitcode = 0
    return { channel, guest }
  }
  const HOST_MS = 1_700_000_000_250

  it('has set the time also where the agent could not write it to CMOS', async () => {
    const { channel, guest } = await without('hwclock failed', () => 1)
    guest.nowMs = HOST_MS + 500
    await expect(channel.setTime(() => HOST_MS, 1_000)).resolves.toBeUndefined()
  })

  it('sets the time by the program date where the agent sets none, in whole seconds where that takes no others', async () => {
    const dates: string[] = []
    const { channel, guest } = await without('not currently supported', words => {
      dates.push(words)
      if (words.includes('.')) return 1
      guest.nowMs = HOST_MS
      return 0
    })
    await channel.setTime(() => HOST_MS, 1_000)
    expect(dates).toEqual(['@1700000000.250', '@1700000000'])
  })

  it('says why the agent set no time where date does not either', async () => {
    const { channel } = await without('not currently supported', () => 0)
    const missed = channel.setTime(() => HOST_MS, 1_000)
    await expect(missed).rejects.toMatchObject({
      code: 'GUEST_AGENT_REFUSED',
      message: expect.stringMatching(/not currently/)
    })
  })

  it('runs a program and gives what it ended with, without a second sync', async () => {
    let asked = 0
    const { channel, clock, said, until } = await open((line, end) => {
      const sync = synced(line)
      if (sync) write(end, sync)
      else if (line.includes('"guest-exec"')) write(end, '{"return": {"pid": 12}}\n')
      else write(end, `{"return": {"exited": ${++asked > 1}, "exitcode": 3}}\n`)
    })
    const run = channel.run(['/bin/tell', 'all'], 10_000)
    await until(3)
    while (asked < 2) {
      clock.pass(100)
      await new Promise(resolve => setImmediate(resolve))
    }
    expect(await run).toBe(3)
    expect(said.slice(1)).toEqual([
      '{"execute":"guest-exec","arguments":{"path":"/bin/tell","arg":["all"]}}',
      ...Array<string>(2).fill('{"execute":"guest-exec-status","arguments":{"pid":12}}')
    ])
  })

  it('gives up an agent that says nothing, and begins anew with the next call', async () => {
    let answers = false
    const { channel, clock, said, until } = await open((line, end) => {
      if (answers) write(end, synced(line) ?? '{"return": {}}\n')
    })
    const first = channel.setTime(() => 1, 5_000)
    await until(1)
    clock.pass(5_000)
    await expect(first).rejects.toMatchObject({ code: 'GUEST_AGENT_SILENT', message: expect.stringMatching(/5000 ms/) })
    answers = true
    await channel.setTime(() => 2, 5_000)
    expect(said.map(line => /"id":\d+|"time":\d+/.exec(line)?.[0])).toEqual(['"id":1', '"id":2', '"time":2000000'])
  })

  it('does not wait for the agent of a VM that has ended', async () => {
    const { channel, socket, until } = await open(() => {})
    const asked = channel.setTime(() => 1, 5_000)
    await until(1)
    socket.destroy()
    await expect(asked).rejects.toMatchObject({ code: 'GUEST_AGENT_GONE' })
    await expect(channel.run(['/x'], 5_000)).rejects.toMatchObject({ code: 'GUEST_AGENT_GONE' })
  })
})
