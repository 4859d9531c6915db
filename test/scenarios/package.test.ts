/** The npm package as a person gets it: packed, put into an empty folder by npx, and run. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { routes } from '../../node/edge/api-routes.ts'
import { ApiClient } from '../../node/edge/client.ts'
import { programVersion } from '../../node/host/version.ts'
import { loopback } from '../demo/cluster.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '../..')

describe('the npm package', () => {
  let dir: string
  let tarball: string
  let files: string[]
  let env: NodeJS.ProcessEnv
  let peer: ChildProcess | undefined

  /** In the empty folder, as it is typed there. */
  const npx = (...args: string[]) => ['--yes', '--prefer-offline', '--package', tarball, '--', 'diapause', ...args]

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'diapause-npx-'))
    env = await npmEnvironment(join(dir, 'npm'))
    const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', dir], {
      cwd: root,
      env,
      maxBuffer: 1 << 26
    })
    // A script that runs before it prints its command first.
    const [packed] = JSON.parse(stdout.slice(stdout.indexOf('[\n'))) as {
      filename: string
      files: { path: string }[]
    }[]
    tarball = join(dir, packed?.filename ?? '')
    files = packed?.files.map(({ path }) => path) ?? []
    await mkdir(join(dir, 'empty'))
  }, 180_000)

  afterAll(async () => {
    peer?.kill('SIGKILL')
    await rm(dir, { recursive: true, force: true })
  })

  it('holds JavaScript with its types, the dashboard and what else is read, and no source', () => {
    for (const path of [
      'node/main.js',
      'node/peer.d.ts',
      'node/hypervisor/native/tracker.c',
      '.build/dashboard/index.html'
    ])
      expect(files).toContain(`dist/${path}`)
    const { bin, exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
      bin: Record<string, string>
      exports: Record<string, Record<string, string>>
    }
    const named = [bin, ...Object.values(exports)].flatMap(Object.values).map((path: string) => path.replace('./', ''))
    expect(files).toEqual(expect.arrayContaining(named))
    const beside = files.filter(path => !path.startsWith('dist/'))
    expect(beside.sort()).toEqual(['LICENSE', 'README.md', 'package.json'])
    expect(files.filter(path => /(?<!\.d)\.tsx?$/.test(path) || path.endsWith('.test.js'))).toEqual([])
  })

  it('has the description of the API and the JSON Schema of definitions, for tools that ask no peer', () => {
    const read = (path: string): unknown => JSON.parse(readFileSync(join(root, 'dist', path), 'utf8'))
    expect(read('openapi.json')).toMatchObject({ openapi: '3.1.0', info: { version: programVersion() } })
    expect(Object.keys((read('openapi.json') as { paths: object }).paths)).toEqual([
      ...new Set(routes.map(({ path }) => path))
    ])
    expect(read('config/definition.schema.json')).toMatchObject({ $id: 'urn:diapause:definition' })
  })

  it('is installed for all by npm, as README says it, and its command runs', async () => {
    const prefix = join(dir, 'global')
    const offline = { npm_config_prefer_offline: 'true', npm_config_prefix: prefix }
    await run('npm', ['install', '--global', `./${basename(tarball)}`], { cwd: dir, env: { ...env, ...offline } })
    const { stdout } = await run(join(prefix, 'bin/diapause'), ['--version'], { cwd: join(dir, 'empty'), env })
    expect(stdout.trim()).toBe(programVersion())
    expect(readFileSync(join(root, 'README.md'), 'utf8')).toContain(`\`npm install --global ./${basename(tarball)}\``)
  }, 180_000)

  it('runs by npx in an empty folder, and a peer of it comes up and stops', async () => {
    const cwd = join(dir, 'empty')
    const said = await run('npx', npx('--version'), { cwd, env })
    expect(said.stdout.trim()).toBe(programVersion())
    const [listen = ''] = await loopback(1)
    const data = join(dir, 'data')
    await run('npx', npx('init', '--cluster', 'forest', '--name', 'oak', '--data-dir', data, '--listen', listen), {
      cwd,
      env
    })
    peer = spawn('npx', npx('up', '--config', join(data, 'peer.toml'), '--json'), {
      cwd,
      env,
      stdio: ['ignore', 'pipe', 'pipe']
    })
    let output = ''
    for (const stream of [peer.stdout, peer.stderr]) stream?.on('data', text => (output += String(text)))
    const client = new ApiClient(join(data, 'run/api.sock'))
    const status = async () => await client.status().catch(() => undefined)
    while ((await status()) === undefined) {
      if (peer.exitCode !== null) throw new Error(`it ended by itself: ${output}`)
      await sleep(100)
    }
    const { version, pid } = await client.status()
    expect(version).toBe(programVersion())
    const ready = () => output.split('\n').find(line => line.startsWith('{') && !line.includes('"level":'))
    while (ready() === undefined) await sleep(100)
    expect(JSON.parse(ready() ?? '')).toMatchObject({
      name: 'oak',
      version,
      addresses: { listens: listen, reached: listen },
      api: { socket: join(data, 'run/api.sock'), url: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/) }
    })
    process.kill(pid, 'SIGTERM')
    await once(peer, 'exit')
    expect(peer.exitCode).toBe(0)
    expect(output).not.toContain('"level":"error"')
  }, 180_000)
})

/** A Node 24 first on the path, an own cache for what npx installs, over the downloads of this machine's. */
async function npmEnvironment(cache: string): Promise<NodeJS.ProcessEnv> {
  const bin = dirname(process.execPath)
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    PATH: `${bin}:${process.env['PATH']}`,
    npm_config_ignore_scripts: 'false'
  }
  const { stdout } = await run('npm', ['config', 'get', 'cache'], { env })
  await mkdir(cache)
  const downloads = join(stdout.trim(), '_cacache')
  if (existsSync(downloads)) await symlink(downloads, join(cache, '_cacache'))
  // Native packages are compiled against this Node's headers, without a download.
  const headers = dirname(bin)
  if (existsSync(join(headers, 'include/node'))) env['npm_config_nodedir'] = headers
  return { ...env, npm_config_cache: cache }
}
