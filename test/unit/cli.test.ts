/** The command line as a person meets it: a real process, its output and its exit code. */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const root = join(import.meta.dirname, '../..')
const examples = join(root, 'config/examples')
let folder: string

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'diapause-cli-'))
})
afterAll(() => rmSync(folder, { recursive: true }))

interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

function run(file: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended> {
  const child = spawn(process.execPath, [join(root, file), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env }
  })
  let [out, err] = ['', '']
  child.stdout.on('data', (part: Buffer) => (out += part.toString()))
  child.stderr.on('data', (part: Buffer) => (err += part.toString()))
  return new Promise(resolve => child.on('close', code => resolve({ code, out, err })))
}

const diapause = (...args: string[]): Promise<Ended> => run('node/main.ts', args)

describe('diapause', () => {
  it('refuses an unknown option or command with a suggestion and exit code 2', async () => {
    const option = await diapause('up', '--confg', 'x')
    expect(option).toMatchObject({
      code: 2,
      out: '',
      err: expect.stringMatching(/unknown option '--confg'\n.*--config/)
    })
    const command = await diapause('statsu')
    expect(command).toMatchObject({ code: 2, err: expect.stringMatching(/unknown command 'statsu'\n.*status/) })
    const missing = await diapause('snapshot')
    expect(missing).toMatchObject({ code: 2, err: expect.stringContaining("missing required argument 'group'") })
  })

  it('refuses a config with a wrong type: names the key, what was expected and what was found', async () => {
    const file = join(folder, 'wrong.toml')
    const text = readFileSync(join(examples, 'two-hosts-and-witness.toml'), 'utf8')
    writeFileSync(file, `${text}\n[lease]\ndurationMs = "1s"\n[log]\nlevle = "info"\n`)
    const { code, err } = await diapause('up', '--config', file)
    expect(code).toBe(2)
    expect(err).toContain('lease.durationMs: expected a whole number from 100 to 600000, found "1s"')
    expect(err).toContain('log.levle: expected a known key; did you mean level?')
    expect(err).not.toContain('    at ')
  })

  it('says how to name a peer, and that none answers', async () => {
    expect(await diapause('status')).toMatchObject({ code: 2, err: expect.stringContaining('--socket PATH') })
    const socket = join(folder, 'none.sock')
    const answer = await diapause('status', '--socket', socket)
    expect(answer).toMatchObject({ code: 2, err: expect.stringMatching(/no peer answers on .*none.sock/) })
    const config = join(folder, 'peer.toml')
    const example = readFileSync(join(examples, 'one-peer-per-host.toml'), 'utf8')
    writeFileSync(config, example.replace('/run/diapause', 'there'))
    const byConfig = await diapause('status', '--config', config)
    expect(byConfig.err).toContain(`no peer answers on ${folder}/there/api.sock`)
  })

  it('prints the same identity for a data folder every time', async () => {
    const dataDir = join(folder, 'data')
    const first = await diapause('identity', '--data-dir', dataDir)
    expect(first).toMatchObject({ code: 0, out: expect.stringMatching(/^12D3KooW\w+\n$/) })
    expect((await diapause('identity', '--data-dir', dataDir)).out).toBe(first.out)
  })

  it('makes a cluster, and refuses to make it twice', async () => {
    const listen = '/ip4/10.0.0.1/tcp/7400'
    const asked = [
      'init',
      '--name',
      'oak',
      '--cluster',
      'forest',
      '--data-dir',
      join(folder, 'oak'),
      '--listen',
      listen
    ]
    const made = await diapause(...asked, '--json')
    expect(JSON.parse(made.out)).toMatchObject({
      name: 'oak',
      cluster: 'forest',
      configFile: join(folder, 'oak/peer.toml')
    })
    expect(await diapause(...asked)).toMatchObject({ code: 2, err: expect.stringContaining('[NEW_PEER_EXISTS]') })
    expect(await diapause('init', '--name', 'oak')).toMatchObject({
      code: 2,
      err: expect.stringContaining('--data-dir')
    })
  })

  it('prints a command that runs the peer it has made, as it was started itself', async () => {
    const ways = { diapause: 'npm run diapause --', other: 'diapause' }
    for (const [script, typed] of Object.entries(ways)) {
      const dir = join(folder, `way-${script}`)
      const args = [
        'init',
        '--name',
        'oak',
        '--cluster',
        'forest',
        '--data-dir',
        dir,
        '--listen',
        '/ip4/10.0.0.1/tcp/7400'
      ]
      const { out } = await run('node/main.ts', args, { npm_lifecycle_event: script })
      expect(out).toMatch(new RegExp(`: ${typed} up --config ${dir}/peer.toml\\n$`))
    }
  })

  it('refuses a token that is none, and wishes about members that say nothing', async () => {
    const join_ = ['join', 'swordfish', '--name', 'elm', '--data-dir', join(folder, 'elm')]
    expect(await diapause(...join_)).toMatchObject({ code: 2, err: expect.stringContaining('[TOKEN_INVALID]') })
    const set = ['members', 'set', 'elm', '--socket', '/none']
    expect(await diapause(...set)).toMatchObject({ code: 2, err: expect.stringContaining('say what to set') })
    const maybe = await diapause(...set, '--votes', 'maybe')
    expect(maybe).toMatchObject({ code: 2, err: expect.stringContaining('It is yes or no.') })
    const soon = await diapause('invite', '--expires', 'soon', '--socket', '/none')
    expect(soon).toMatchObject({ code: 2, err: expect.stringContaining('whole number of minutes') })
    const commands = [['members'], ['members', 'remove', 'elm', '--yes'], ['leave', '--yes'], ['invite']]
    const ended = await Promise.all(commands.map(command => diapause(...command, '--socket', '/none')))
    for (const { code, err } of ended) {
      expect({ code, err }).toMatchObject({ code: 2, err: expect.stringContaining('[PEER_UNREACHABLE]') })
    }
  })

  it('refuses a definition that is not there or not YAML', async () => {
    expect(await diapause('vm', 'define', join(folder, 'no.yaml'))).toMatchObject({ code: 2 })
    writeFileSync(join(folder, 'bad.yaml'), 'id: [\n')
    const bad = await diapause('vm', 'define', join(folder, 'bad.yaml'), '--socket', '/none')
    expect(bad).toMatchObject({ code: 2, err: expect.stringContaining('line 2, column') })
  })

  it('helps with exit code 0', async () => {
    expect(await diapause('--help')).toMatchObject({ code: 0, err: '', out: expect.stringContaining('run a peer') })
    expect(await diapause('--version')).toMatchObject({ code: 0, out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) })
  })
})

describe('npm run bench', () => {
  it('lists the benchmarks', async () => {
    expect(await run('test/bench/main.ts', [])).toMatchObject({ code: 0, out: expect.stringContaining('  capture  ') })
  })

  it('refuses unknown benchmarks and options with exit code 2', async () => {
    const unknown = await run('test/bench/main.ts', ['captur'])
    expect(unknown).toMatchObject({ code: 2, err: expect.stringContaining('did you mean capture?') })
    expect(await run('test/bench/main.ts', ['code', '--jsn', 'x'])).toMatchObject({ code: 2 })
    expect(await run('test/bench/main.ts', ['code', '--only', '2+1'])).toMatchObject({ code: 2 })
  })

  it('writes its checks, their bounds and the machine', async () => {
    const file = join(folder, 'bench.json')
    await run('test/bench/main.ts', ['code', '--only', '3+2', '--megabytes', '1', '--json', file])
    const report = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>
    expect(report).toMatchObject({ name: 'code', machine: { node: process.versions.node } })
    expect(report['checks']).toContainEqual({
      name: '3+2 64 KiB: decoded bytes are the data',
      value: true,
      unit: '',
      bound: 'true',
      ok: true
    })
  })
})

describe('npm run sim', () => {
  it('helps with exit code 0, and refuses unknown options with exit code 2', async () => {
    const help = await run('test/sim/main.ts', ['--help'])
    expect(help).toMatchObject({
      code: 0,
      err: '',
      out: expect.stringMatching(/seeds {7}--seeds 200 .*\n {2}registers/)
    })
    const wrong = await run('test/sim/main.ts', ['--sedes', '2'])
    expect(wrong).toMatchObject({ code: 2, out: '', err: expect.stringContaining('npm run sim -- --help') })
  })
})

describe('npm run check', () => {
  it('refuses an unknown option with exit code 2', async () => {
    expect(await run('test/check.ts', ['--fast'])).toMatchObject({ code: 2, err: expect.stringContaining("'--fast'") })
  })
})
