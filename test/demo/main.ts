/** `npm run demo`: reads the options, tells the story (story.ts), prints and writes the report, leaves nothing behind. */
import { accessSync, constants } from 'node:fs'
import { cp, mkdir, writeFile } from 'node:fs/promises'
import { basename, delimiter, join } from 'node:path'
import { DiapauseError, messageOf, UsageError } from '../../node/errors.ts'
import { buildGuest } from '../guest/build.ts'
import { machineFacts, writeReport } from '../measure.ts'
import { Cluster, logTail, removeCluster } from './cluster.ts'
import { type DemoOptions, readOptions, usage } from './options.ts'
import { makeProgress, type Progress } from './progress.ts'
import { makeReport, type Seen } from './report.ts'
import { GROUP, Story } from './story.ts'
import { colours, plain, reportText } from './text.ts'

const root = join(import.meta.dirname, '../..')

/** The exit code. */
async function demo(options: DemoOptions): Promise<number> {
  needPrograms(['qemu-system-x86_64', 'setpriv'])
  const abort = new AbortController()
  const interrupt = () => abort.abort(new DiapauseError('DEMO_INTERRUPTED', 'interrupted'))
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, interrupt)

  const progress = makeProgress(process.stdout, () => performance.now())
  progress.step('building the test guest')
  const guest = await buildGuest({ progress: text => progress.note(text) })
  abort.signal.throwIfAborted()
  const cluster = await Cluster.create({
    peers: options.peers,
    detached: options.keep,
    onEvent: ({ by, event }) => {
      if (event.kind === 'vm.failed') progress.note(`${event.vm} failed on ${by}: ${event.reason}`)
    }
  })
  const story = new Story({ cluster, guest, options, progress, signal: abort.signal })
  const error = await story.tell().then(
    () => undefined,
    (reason: unknown) => reason
  )
  progress.end(error === undefined)
  const kept = options.keep && error === undefined
  const seen: Seen = {
    ...story.seen,
    error: error === undefined ? undefined : messageOf(error),
    leftovers: kept ? undefined : await finish(story, cluster, progress, error)
  }
  progress.end(true)
  const report = makeReport(seen)
  process.stdout.write(reportText(seen, report, process.stdout.isTTY ? colours : plain))
  if (options.json !== undefined) {
    const { peers, vms, epochs, memoryMiB } = options
    const machine = await machineFacts(seen.hypervisor)
    writeReport(options.json, {
      name: 'demo',
      machine,
      options: { peers, vms, epochs, memoryMiB },
      ...report,
      events: seen.events
    })
  }
  if (kept) {
    process.stdout.write(howToLook(cluster))
    cluster.leave()
  }
  if (abort.signal.aborted) return 130
  return report.ok ? 0 : 1
}

/** Ends the cluster; logs are kept where something went wrong. The faults of the clean-up. */
async function finish(story: Story, cluster: Cluster, progress: Progress, error: unknown): Promise<string[]> {
  progress.step('stopping everything')
  await story.removeGroup().catch((reason: unknown) => progress.note(`removing the group failed: ${messageOf(reason)}`))
  const logs = join(root, '.build/demo-logs', basename(cluster.dir))
  const failed = error !== undefined || !makeReport({ ...story.seen, error: undefined, leftovers: [] }).ok
  if (failed) {
    await keepLogs(cluster, logs)
    progress.note(`logs and consoles are kept in ${logs}`)
    // A story that was told to its end and missed a bound is explained by its report, not by logs.
    for (const peer of error === undefined ? [] : cluster.peers) {
      for (const line of logTail(peer, 4)) progress.note(`${peer.name}'s log: ${line}`)
    }
  }
  return cluster.stop()
}

async function keepLogs(cluster: Cluster, to: string): Promise<void> {
  for (const peer of cluster.peers) {
    await mkdir(join(to, peer.name), { recursive: true })
    await cp(peer.logFile, join(to, peer.name, 'log')).catch(() => undefined) // it may never have started
    await cp(peer.consoleDir, join(to, peer.name, 'console'), { recursive: true }).catch(() => undefined) // nor have had a VM
  }
  await writeFile(join(to, 'events.ndjson'), cluster.events.map(seen => `${JSON.stringify(seen)}\n`).join(''))
}

function howToLook(cluster: Cluster): string {
  const [peer] = cluster.alive
  const command = (words: string) => `  npm run diapause -- ${words} --socket ${peer?.socketPath}\n`
  return (
    `\nThe cluster goes on running. Look at it with\n\n${command('status')}${command('events --follow')}${command(`snapshot ${GROUP}`)}` +
    `  tail -f ${join(cluster.dir, 'p*/run/console/*.log')}\n\nand end it with\n\n  npm run demo -- --stop ${cluster.dir}\n`
  )
}

/** Ends a kept cluster. Only a folder that looks like one of ours is removed. */
async function stopKept(dir: string): Promise<number> {
  const folder = dir.replace(/\/+$/, '')
  try {
    if (!/^diapause-\w{6}$/.test(basename(folder))) throw new Error('its name is not of the form diapause-XXXXXX')
    accessSync(join(folder, 'p1/peer.toml'))
  } catch (cause) {
    throw new UsageError('DEMO_OPTIONS', `--stop: ${dir} is not the folder of a kept demo (${messageOf(cause)})`, {
      cause
    })
  }
  const faults = await removeCluster(folder)
  process.stdout.write(faults.length === 0 ? `${folder} and its processes are gone\n` : `${faults.join('\n')}\n`)
  return faults.length === 0 ? 0 : 1
}

function needPrograms(names: readonly string[]): void {
  const found = (name: string) => (process.env['PATH'] ?? '').split(delimiter).some(dir => isProgram(join(dir, name)))
  const missing = names.filter(name => !found(name))
  if (missing.length > 0)
    throw new UsageError(
      'DEMO_PROGRAMS',
      `${missing.join(' and ')} missing on this machine: run  sudo apt-get install -y qemu-system-x86 util-linux`
    )
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

try {
  const options = readOptions(process.argv.slice(2))
  if (options.help) process.stdout.write(`${usage}\n`)
  else process.exitCode = options.stop === undefined ? await demo(options) : await stopKept(options.stop)
} catch (error) {
  process.stderr.write(`demo: ${messageOf(error)}\n`)
  if (!(error instanceof DiapauseError)) process.stderr.write(`${error instanceof Error ? error.stack : ''}\n`)
  process.exitCode = error instanceof UsageError ? 2 : 1
}
