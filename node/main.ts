/** The process: argv, environment, signals and standard streams. Nothing else reads them. */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { enableCompileCache } from 'node:module'
import { join } from 'node:path'
import { runCli } from './edge/cli.ts'
import { leaveNoCore } from './host/core-dumps.ts'
import type { ReadyPeer, RunningPeer } from './edge/view.ts'
import { LogOutput } from './host/log-output.ts'
import { createNotifier } from './host/notify-ready.ts'
import { createTerminal } from './edge/terminal-streams.ts'
import { programVersion } from './host/version.ts'

// Types stripped and code compiled once for all peers, their restarts and each VM's worker thread, which a takeover waits
// for: its start took 175 to 240 ms of CPU without, 75 to 140 ms with (two busy cores).
enableCompileCache(join(import.meta.dirname, '../.build/compile-cache'))

/** After a first SIGINT or SIGTERM the peer stops in order; after a second one at once. SIGUSR2: debug lines, and none again. */
async function untilStopped(peer: RunningPeer, begun: (peer: ReadyPeer) => void): Promise<void> {
  const systemd = createNotifier({
    socket: process.env['NOTIFY_SOCKET'],
    watchdogUs: process.env['WATCHDOG_USEC'],
    failed: error => void process.stderr.write(`diapause: systemd cannot be told: ${error.message}\n`)
  })
  let asked = false
  const stop = (signal: NodeJS.Signals): void => {
    if (asked) process.exit(signal === 'SIGINT' ? 130 : 143)
    asked = true
    systemd.stopping()
    // A failure to stop arrives through `stopped` as well.
    peer.stop().catch(() => {})
  }
  process.on('SIGINT', stop).on('SIGTERM', stop)
  process.on('SIGUSR2', () => void peer.toggleDebug())
  peerRuns = true
  systemd.ready(`${peer.ready.name} serves; how it is: diapause status --socket ${peer.ready.api.socket}`)
  begun(peer.ready)
  await peer.stopped
}

// `diapause events | head` closes our output early: there is nobody left to tell.
// A peer goes on: it has VMs.
let peerRuns = false
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (!peerRuns) process.exit(error.code === 'EPIPE' ? 0 : 1)
})
process.stderr.on('error', () => {}) // nobody is left to be told

let progressShown = false

/** One line that is written again and again. */
function progress(text: string): void {
  if (!process.stderr.isTTY) return
  process.stderr.write(`\r\x1b[K${text}`)
  progressShown = text !== ''
}

/** A line of the peer's log, where it goes to the terminal that shows how far the peer is: in the place of that. */
function logOverProgress(line: string): void {
  if (progressShown) progress('')
  process.stdout.write(line)
}
const output = new LogOutput(process.stdout.fd)
process.once('exit', () => output.flush())
const writeLog =
  process.stdout.isTTY && process.stderr.isTTY ? logOverProgress : (line: string): void => output.write(line)

async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const stop = new AbortController()
  const abort = (): void => stop.abort()
  process.once('SIGINT', abort).once('SIGTERM', abort)
  try {
    return await work(stop.signal)
  } finally {
    process.off('SIGINT', abort).off('SIGTERM', abort)
  }
}

/** What a checkout has beside the program, and a package has not. */
const scripts = ['demo', 'bench'] as const
type Script = (typeof scripts)[number]
const scriptFile = (name: Script): string => join(import.meta.dirname, `../test/${name}/main.ts`)

/** Signals of the terminal reach it as they reach us; which code it ends with is told. */
function runScript(name: Script, words: readonly string[]): Promise<number> {
  const child = spawn(process.execPath, [...process.execArgv, scriptFile(name), ...words], { stdio: 'inherit' })
  const wait = (): void => {}
  process.on('SIGINT', wait).on('SIGTERM', wait)
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => resolve(code ?? (signal === 'SIGINT' ? 130 : 143)))
  })
}

/** What is set and not empty. */
function fromEnvironment(): { url?: string; tokenFile?: string; ca?: string } {
  const { DIAPAUSE_URL: url, DIAPAUSE_TOKEN_FILE: tokenFile, DIAPAUSE_CA: ca } = process.env
  return { ...(url && { url }), ...(tokenFile && { tokenFile }), ...(ca && { ca }) }
}

// Before a key is read, by whichever command: which of them hold one changes. A peer's log says why, where there may be one.
const whyCore = await leaveNoCore()

const code = await runCli(process.argv.slice(2), {
  version: programVersion(),
  typed: process.env['npm_lifecycle_event'] === 'diapause' ? 'npm run diapause --' : 'diapause',
  defaultConfigFile: process.env['DIAPAUSE_CONFIG'] || undefined,
  defaultRemote: fromEnvironment(),
  drillFolder: process.env['DIAPAUSE_DRILL'],
  loadConfig: async file => (await import('./host/config-file.ts')).loadConfig(file),
  runPeer: async (config, begun) => {
    const { credentialsIn } = await import('./host/home-credentials.ts')
    const { runPeer } = await import('./peer.ts')
    await untilStopped(await runPeer(config, { credentials: credentialsIn(process.env), writeLog, whyCore }), begun)
  },
  readToken: async file => (await import('./host/token-file.ts')).readToken(file),
  readCertificate: async file => (await import('./host/token-file.ts')).readCertificate(file),
  readCredentials: async file => (await import('./host/home-credentials.ts')).readCredentials(file),
  readRecoveryKey: async file => (await import('./host/recovery-key.ts')).readRecoveryKey(file),
  newRecoveryKey: async () => (await import('./host/recovery-key.ts')).newRecoveryKey(),
  identity: async dataDir => (await (await import('./host/identity.ts')).loadOrCreateIdentity(dataDir)).peerId,
  init: async options => (await import('./host/init.ts')).initCluster(options),
  join: async options => (await import('./host/join.ts')).joinCluster(options),
  terminal: createTerminal({
    input: process.stdin,
    output: process.stdout,
    errors: process.stderr,
    noColor: process.env['NO_COLOR'],
    kind: process.env['TERM']
  }),
  readInput: async () => (await import('node:stream/consumers')).text(process.stdin),
  scripts: scripts.filter(name => existsSync(scriptFile(name))),
  runScript,
  definitionToRequest: async text => (await import('./edge/group-request.ts')).definitionToRequest(text),
  examine: async (config, trying) => (await import('./doctor.ts')).examine(config, trying),
  print: text => void process.stdout.write(`${text}\n`),
  progress,
  interruptible,
  printError: text => void process.stderr.write(`${text}\n`)
})
// What a stopped peer left open (a socket that lingers) must not keep the process.
process.exit(code)
