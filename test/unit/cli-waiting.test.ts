/** What a person sees while a command waits for a peer that takes its time: of each command, against one that never answers. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Config } from '../../config/schema.ts'
import { type CliHost, program, runCli } from '../../node/edge/cli.ts'
import { doctorCommand } from '../../node/edge/doctor.ts'
import type { ReadyPeer } from '../../node/edge/view.ts'

let dir: string
let peer: Server
/** The first request: whoever sent it waits for the answer. */
let asked: Promise<void>
let sockets: Socket[]
let dead: boolean

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'diapause-waiting-'))
  sockets = []
  dead = false
  const { promise, resolve } = Promise.withResolvers<void>()
  asked = promise
  peer = createServer(socket => {
    if (dead) return void socket.destroy()
    sockets.push(socket.on('error', () => {}).on('data', () => resolve()))
  })
  await new Promise<void>(listening => peer.listen(join(dir, 'api.sock'), listening))
  writeFileSync(join(dir, 'file'), 'text')
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
})
afterEach(() => {
  vi.useRealTimers()
  peer.close()
  rmSync(dir, { recursive: true })
})

function aHost(told: string[], printed: string[] = []): CliHost {
  const host: Partial<CliHost> = {
    version: '0',
    defaultConfigFile: undefined,
    defaultRemote: {},
    print: text => void printed.push(text),
    printError: text => void printed.push(text),
    progress: text => void told.push(text),
    definitionToRequest: async () => ({}),
    readRecoveryKey: async () => 'key',
    newRecoveryKey: async () => ({ text: 'key', name: 'name', public: 'public' }),
    interruptible: work => work(new AbortController().signal)
  }
  return host as CliHost
}

const leaves = (command: Command, path: readonly string[] = []): (readonly [string, Command])[] => [
  ...(command.options.some(({ long }) => long === '--socket') ? [[path.join(' '), command] as const] : []),
  ...command.commands.flatMap(each => leaves(each, [...path, each.name()]))
]
/** `import` reads its folder first; the others ask the peer first of all. */
const commands = leaves(program(aHost([]))).filter(([path]) => path !== 'import')

/** What each wants beside its arguments. */
const wants: Readonly<Record<string, readonly string[]>> = {
  'vm define': ['FILE'],
  'vm rm': ['--yes'],
  'members set': ['--votes', 'yes'],
  'tokens new': ['--name', 'till', '--role', 'view'],
  'policy set': ['--policy', 'interval', '--every', '5s'],
  'policy simulate': ['--policy', 'interval', '--every', '5s'],
  'drill schedule': ['--every', '24h'],
  'home restore': ['--recovery-key-file', 'FILE'],
  restore: ['--yes'],
  leave: ['--yes'],
  'members remove': ['--yes'],
  export: ['--out', 'OUT']
}

function wordsOf(path: string, { registeredArguments }: Command): string[] {
  const names = registeredArguments.filter(({ required }) => required).map(() => '1')
  const more = (wants[path] ?? []).map(word => ({ FILE: join(dir, 'file'), OUT: join(dir, 'out') })[word] ?? word)
  return [...path.split(' '), ...names, ...more, '--socket', join(dir, 'api.sock')]
}

describe('a command that waits for its peer', () => {
  it.each(commands)('%s says after a second that it does', async (path, command) => {
    const told: string[] = []
    const ended = runCli(wordsOf(path, command), aHost(told))
    await Promise.race([asked, ended.then(code => expect.fail(`it ended with ${code} and asked nobody`))])
    vi.advanceTimersByTime(1_000)
    expect(told.filter(text => text !== '')).not.toEqual([])
    expect(told.at(-1)).toMatch(/: 1 s$/)
    dead = true
    for (const socket of sockets) socket.destroy()
    expect(await ended).toBeGreaterThan(0)
    expect(told.at(-1)).toBe('')
  })

  it('says what is done, where that is known', async () => {
    const told: string[] = []
    const ended = runCli(['keys', 'rotate', '--socket', join(dir, 'api.sock')], aHost(told))
    await asked
    vi.advanceTimersByTime(2_000)
    expect(told.at(-1)).toBe('a new key is made and given to the members: 2 s')
    sockets[0]?.destroy()
    await ended
  })

  it('says nothing of it while it goes on for as long as a person looks', async () => {
    const told: string[] = []
    const ended = runCli(['events', '--follow', '--socket', join(dir, 'api.sock')], aHost(told))
    await asked
    vi.advanceTimersByTime(5_000)
    expect(told).toEqual([])
    sockets[0]?.destroy()
    await ended
  })
})

describe('a command that makes or runs a peer', () => {
  const own = ['--name', 'oak', '--data-dir', '/d', '--listen', '/ip4/10.0.0.1/tcp/7400']
  const made = { id: 'x', name: 'oak', cluster: 'forest', configFile: '/d/peer.toml' }
  const ready = {} as ReadyPeer
  const lines: readonly (readonly [string, string[], (done: Promise<void>) => Partial<CliHost>])[] = [
    [
      'cluster forest is made',
      ['init', '--cluster', 'forest', ...own],
      done => ({ init: async () => (await done, made) })
    ],
    [
      'elm is asked',
      ['join', 'TOKEN', ...own],
      done => ({ join: async ({ waitsFor }) => (waitsFor('elm is asked'), await done, made) })
    ],
    [
      'the identity is read or made',
      ['identity', '--data-dir', '/d'],
      done => ({ identity: async () => (await done, 'x') })
    ],
    [
      'the peer starts',
      ['up', '--config', 'peer.toml'],
      done => ({ loadConfig: async () => ({}) as Config, runPeer: async (_, begun) => (await done, begun(ready)) })
    ]
  ]

  it.each(lines)('says after a second that %s', async (what, words, hostOf) => {
    const told: string[] = []
    const { promise, resolve } = Promise.withResolvers<void>()
    const ended = runCli(words, { ...aHost(told), ...hostOf(promise) })
    await new Promise(setImmediate)
    vi.advanceTimersByTime(2_000)
    expect(told.at(-1)).toBe(`${what}: 2 s`)
    resolve()
    expect(await ended).toBe(0)
    expect(told.at(-1)).toBe('')
  })

  it('tells what a member said in a line of its own, and goes on to say whom it waits for', async () => {
    const seen: string[] = []
    const { promise, resolve } = Promise.withResolvers<void>()
    const join: CliHost['join'] = async ({ waitsFor, tell }) => {
      waitsFor('elm is asked')
      tell('elm: not now')
      waitsFor('ash is asked')
      await promise
      return made
    }
    const ended = runCli(['join', 'TOKEN', ...own], { ...aHost(seen, seen), join })
    await new Promise(setImmediate)
    vi.advanceTimersByTime(1_000)
    expect(seen).toEqual(['elm is asked', '', 'elm: not now', 'ash is asked', 'ash is asked: 1 s'])
    resolve()
    await ended
    expect(seen.slice(5)).toEqual(['', expect.stringMatching(/^oak .* is a member of cluster forest/)])
  })
})

describe('doctor', () => {
  it('says what it tries, where that takes more than a second', async () => {
    const told: string[] = []
    const { promise, resolve } = Promise.withResolvers<string>()
    const examine: CliHost['examine'] = async (_, trying) => {
      await trying('QEMU', promise)
      return []
    }
    const diapause = new Command()
    doctorCommand(diapause, { ...aHost(told), examine }, undefined)
    const ended = diapause.parseAsync(['doctor'], { from: 'user' })
    vi.advanceTimersByTime(2_000)
    resolve('there')
    await ended
    expect(told).toEqual(['QEMU is tried: 1 s', 'QEMU is tried: 2 s', ''])
  })
})
