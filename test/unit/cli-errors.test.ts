/** What a program reads of a command that failed: with `--json` an object on standard error, whoever found the mistake. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ApiServer, apiSocketPath, serveApi } from '../../node/edge/api.ts'
import { advisedCodes } from '../../node/edge/advice.ts'
import { type CliHost, runCli } from '../../node/edge/cli.ts'
import { errorText, type ToldError, toldError } from '../../node/edge/explain.ts'
import type { PeerView } from '../../node/edge/view.ts'
import { DiapauseError, UsageError } from '../../node/errors.ts'

let dir: string
let api: ApiServer

/** A group that is not there, and epochs that come to nothing. */
const view = {
  removeGroup: async (group: string) => {
    throw new UsageError('GROUP_UNKNOWN', `There is no group "${group}" in this cluster.`, { details: { group } })
  },
  groups: () => {
    throw new TypeError('a mistake')
  },
  takeEpoch: async () => ({ epoch: 7, outcome: 'aborted', reason: 'oak did not answer' })
} as unknown as PeerView

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'diapause-errors-'))
  api = await serveApi({ view, runDir: dir, log: { debug() {}, info() {}, warn() {}, error() {} } })
})
afterAll(async () => {
  await api.close()
  rmSync(dir, { recursive: true })
})

async function run(...words: string[]): Promise<{ code: number; out: string[]; err: string[] }> {
  const [out, err]: [string[], string[]] = [[], []]
  /** Who watches leaves as soon as something is told. */
  const told = new AbortController()
  const host: Partial<CliHost> = {
    version: '1.2.3',
    defaultConfigFile: undefined,
    defaultRemote: {},
    scripts: ['bench'],
    terminal: { shows: false, asks: false, color: false } as CliHost['terminal'],
    interruptible: work => work(told.signal),
    runScript: () => Promise.reject(new DiapauseError('SCRIPT', 'it does not start')),
    print: text => (out.push(text), told.abort()),
    printError: text => void err.push(text),
    progress: () => {}
  }
  return { code: await runCli(words, host as CliHost), out, err }
}
const asked = (...words: string[]) => run(...words, '--socket', apiSocketPath(dir))

async function failure(...words: string[]): Promise<ToldError & { readonly out: readonly string[] }> {
  const { code, out, err } = await asked(...words, '--json')
  expect(err).toHaveLength(1)
  expect(err[0]).not.toContain('\n')
  const { error } = JSON.parse(err[0] ?? '') as { error: ToldError }
  expect(error.exitCode).toBe(code)
  return { ...error, out }
}

describe('an error under --json', () => {
  it('has the code, the message and the facts of the peer, and what to do', async () => {
    expect(await failure('vm', 'rm', 'bank', '--yes')).toEqual({
      code: 'GROUP_UNKNOWN',
      message: 'There is no group "bank" in this cluster.',
      todo: expect.stringContaining('diapause vm list') as string,
      details: { group: 'bank' },
      exitCode: 2,
      out: []
    })
  })

  it('leaves standard output to the result, which a command may have as well', async () => {
    const { out, ...error } = await failure('snapshot', 'bank')
    expect(error).toMatchObject({ code: 'EPOCH_ABORTED', exitCode: 1 })
    expect(out.map(text => JSON.parse(text) as object)).toEqual([
      { epoch: 7, outcome: 'aborted', reason: 'oak did not answer' }
    ])
  })

  it('says what lay beneath', async () => {
    const { err } = await run('status', '--json', '--socket', join(dir, 'none.sock'))
    const { error } = JSON.parse(err[0] ?? '') as { error: ToldError }
    expect(error).toMatchObject({ code: 'PEER_UNREACHABLE', cause: expect.stringContaining('ENOENT') as string })
  })

  it.each([
    [['vm', 'list', '--jsn', '--json'], /unknown option '--jsn'.*Did you mean --json/s],
    [['log', 'chatty', '--json'], /^'chatty' cannot be the level\. Allowed choices are debug/],
    [['statsu', '--json'], /unknown command 'statsu'/],
    [['snapshot', '--json'], /missing required argument 'group'/],
    [['vm', '--json'], /unknown option '--json'|a command is missing/],
    [['epochs', 'policy', 'bank', '--last', 'many', '--json'], /"many" is not a whole number/]
  ])('is that of a command line which is wrong: %j', async (words, message) => {
    const { code, out, err } = await run(...words)
    expect([code, out, err.length]).toEqual([2, [], 1])
    const { error } = JSON.parse(err[0] ?? '') as { error: ToldError }
    expect(error.message).toMatch(message)
    expect(error).toMatchObject({ exitCode: 2, todo: expect.stringMatching(/./) as string })
  })

  it('is none where somebody asks for help', async () => {
    expect(await run('status', '--json', '--help')).toMatchObject({ code: 0, err: [] })
  })

  it('is told as a mistake of the program where it is one', async () => {
    const { code, message } = await failure('vm', 'console', 'till', 'ls')
    expect([code, message]).toEqual(['INTERNAL', 'a mistake'])
  })
})

it.each(['EIO', 'EROFS', 'ENOSPC', 'EDQUOT'])('what a disk does (%s) is no mistake of the program', code => {
  const error = Object.assign(new Error(`${code}: something, write`), { code, syscall: 'write' })
  expect(toldError(error)).toMatchObject({
    code: 'HOST_DISK',
    todo: expect.stringMatching(/dmesg/) as string,
    exitCode: 1
  })
  expect(errorText(error)).toMatch(/^diapause: E\w+: something, write \[HOST_DISK\]\n {2}→ see whether the disk/)
})

describe('an error for people', () => {
  it('is a sentence with its code, also where the text to type is --json', async () => {
    const { err } = await asked('vm', 'rm', 'bank', '--yes')
    expect(err[0]?.split('\n')[0]).toBe('diapause: There is no group "bank" in this cluster. [GROUP_UNKNOWN]')
    const typed = await run('vm', 'console', 'till', '--socket', join(dir, 'none.sock'), '--', '--json')
    expect(typed.err[0]).toMatch(/\[PEER_UNREACHABLE\]$/m)
  })

  it('says on a second line what to do', async () => {
    const { err } = await asked('vm', 'rm', 'bank', '--yes')
    expect(err[0]?.split('\n').slice(1)).toEqual([expect.stringMatching(/^ {2}→ .*diapause vm list/)])
    expect((await asked('vm', 'console', 'till', 'ls')).err[0]).toMatch(/ a mistake \[INTERNAL\]\n {2}→ .*report it/)
  })

  it('says so also where somebody watches', async () => {
    const { out } = await run('status', '--watch', '--socket', join(dir, 'none.sock'))
    expect(out).toEqual([expect.stringMatching(/\[PEER_UNREACHABLE\]\n {2}→ start that peer/)])
  })

  it('does not say twice what to do', async () => {
    const { err } = await run('status')
    expect(err).toEqual([expect.stringMatching(/--config FILE.*\[SOCKET_MISSING\]$/)])
  })

  it('is that of a program which was started, whose --json is its own', async () => {
    expect(await run('bench', 'code', '--json', 'FILE')).toMatchObject({
      code: 1,
      err: ['diapause: it does not start [SCRIPT]']
    })
  })
})

it('nobody is advised on a code that no part of the program gives', () => {
  const root = join(import.meta.dirname, '../..')
  const sources = ['node', 'protocols', 'config'].flatMap(folder =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter(name => name.endsWith('.ts') && !name.endsWith('edge/advice.ts'))
      .map(name => readFileSync(join(root, folder, name), 'utf8'))
  )
  const text = sources.join('\n')
  expect(advisedCodes.filter(code => !text.includes(`'${code}'`))).toEqual([])
})
