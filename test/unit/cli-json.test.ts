/** What commands print with --json that have a text for other programs otherwise, or none. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { definitionSchemaText } from '../../config/definition-schema.ts'
import type { Config } from '../../config/schema.ts'
import { type CliHost, runCli } from '../../node/edge/cli.ts'
import { completionScripts } from '../../node/edge/completion.ts'
import type { ReadyPeer } from '../../node/edge/view.ts'
import { UsageError } from '../../node/errors.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'diapause-json-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

interface Printed {
  readonly code: number
  readonly out: string[]
  readonly err: string[]
}

async function run(args: readonly string[], more: Partial<CliHost> = {}): Promise<Printed> {
  const [out, err]: string[][] = [[], []]
  const host: Partial<CliHost> = {
    version: '1.2.3',
    defaultConfigFile: undefined,
    defaultRemote: {},
    loadConfig: async () => ({}) as Config,
    print: text => void out?.push(text),
    printError: text => void err?.push(text),
    progress: () => {},
    ...more
  }
  const code = await runCli(args, host as CliHost)
  return { code, out: out ?? [], err: err ?? [] }
}

describe('a peer that is run with --json', () => {
  const ready: ReadyPeer = {
    name: 'oak',
    id: '12D3',
    version: '1.2.3',
    addresses: { listens: '/ip4/0.0.0.0/tcp/7400', reached: '/ip4/10.0.0.1/tcp/7400' },
    api: { socket: '/run/api.sock', url: 'http://127.0.0.1:7480' }
  }

  it('says what it is on one line when it is ready, and not before', async () => {
    const lines: string[] = []
    const runPeer: CliHost['runPeer'] = async (_, begun) => {
      expect(lines).toEqual([])
      begun(ready)
      await new Promise(setImmediate)
      expect(lines.map(line => JSON.parse(line) as unknown)).toEqual([ready])
      expect(lines[0]).not.toContain('\n')
    }
    const print = (text: string): void => void lines.push(text)
    expect(await run(['up', '--config', 'peer.toml', '--json'], { runPeer, print })).toMatchObject({ code: 0, err: [] })
  })

  it('says why it does not start', async () => {
    const runPeer = () => Promise.reject(new UsageError('DATA_DIR_LOCKED', 'another peer has it'))
    const { code, out, err } = await run(['up', '--config', 'peer.toml', '--json'], { runPeer })
    expect({ code, out }).toEqual({ code: 2, out: [] })
    expect(JSON.parse(err.join())).toMatchObject({ error: { code: 'DATA_DIR_LOCKED', exitCode: 2 } })
  })

  it('without it prints nothing of its own', async () => {
    const runPeer: CliHost['runPeer'] = async (_, begun) => begun(ready)
    expect(await run(['up', '--config', 'peer.toml'], { runPeer })).toEqual({ code: 0, out: [], err: [] })
  })
})

it('a script for a shell comes as JSON with the name of the shell', async () => {
  const { out } = await run(['completion', 'fish', '--json'])
  expect(JSON.parse(out.join('\n'))).toEqual({ shell: 'fish', script: completionScripts.fish })
  expect((await run(['completion', 'fish'])).out).toEqual([completionScripts.fish])
})

it('the schema of definitions is JSON with and without', async () => {
  const [asked, plain] = [await run(['vm', 'schema', '--json']), await run(['vm', 'schema'])]
  expect(JSON.parse(asked.out.join('\n'))).toEqual(JSON.parse(definitionSchemaText()))
  expect(asked).toEqual(plain)
})

describe('what a VM of a drill answers', () => {
  it('comes as JSON with what was typed', async () => {
    const socket = join(folder, 'till.console')
    writeFileSync(join(folder, 'drill.json'), JSON.stringify({ vms: [{ id: 'till', console: socket }] }))
    const guest = createServer(client => {
      client.on('error', () => {}) // who waits for no line is gone
      client.on('data', typed => client.write(`you said ${typed.toString()}`))
    })
    await new Promise<void>(listening => guest.listen(socket, listening))
    const say = (...args: string[]) => run(['drill', 'say', 'till', ...args], { drillFolder: folder })
    const { out } = await say('hello', 'hello$', '--json')
    expect(out.map(line => JSON.parse(line) as unknown)).toEqual([
      { vm: 'till', typed: 'hello', line: 'you said hello' }
    ])
    const unheard = await say('hello', '--json')
    expect(unheard.out).toEqual(['{"vm":"till","typed":"hello","line":null}'])
    expect((await say('hello', 'hello$')).out).toEqual(['you said hello'])
    expect((await say('hello')).out).toEqual([])
    guest.close()
  })
})
