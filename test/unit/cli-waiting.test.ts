/** What a person sees while a command waits for a peer that takes its time: of each command, against one that never answers. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type CliHost, program, runCli } from '../../node/edge/cli.ts'
import { doctorCommand } from '../../node/edge/doctor.ts'

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
