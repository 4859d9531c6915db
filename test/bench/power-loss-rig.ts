/**
 * Rounds of power loss, in a mount namespace of its own (`power-loss.ts` makes it; what is mounted here ends with it): a
 * store on an xfs that lies in a file, a process that writes, `xfs_io -x -c shutdown` at a random moment. From then on
 * the file system takes nothing more, not even its own log: what was fsynced is there after the next mount, and nothing
 * else need be. Then the process is killed, the file system mounted again, and the store asked for all it has promised.
 */
import { type ChildProcess, execFileSync, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { openShardStore } from '../../node/store/shard-store.ts'
import { clock, quietLog } from '../contract/real-clock.ts'
import { Promises } from './power-loss-judge.ts'
import type { WriterOrder } from './power-loss-writer.ts'

export interface RigOrder {
  /** An empty directory. */
  readonly dir: string
  readonly rounds: number
  readonly unsynced: boolean
}

export interface RoundSeen {
  readonly round: number
  /** Acknowledged in this round. */
  readonly acknowledged: number
  /** Promised in this or an earlier round, and read again. */
  readonly checked: number
  readonly lost: readonly string[]
  readonly wrong: readonly string[]
  /** Whole although nobody was told. */
  readonly more: number
  /** Whether the power went before the store was open. */
  readonly opening: boolean
  readonly tookMs: number
}

/** xfs has at least 300 MB. The file is sparse, and in memory: what the file system flushes need not reach a disk. */
const DISK_MIB = 320
/** Longest time of writing: enough for segments to be rolled and streams to be dropped. */
const MOST_WRITING_MS = 60
/** One round in so many loses its power while the store opens. */
const OPENING_ROUNDS = 8
const MOST_OPENING_MS = 25

const order = JSON.parse(process.argv[2] ?? '{}') as RigOrder
const run = (program: string, ...args: string[]): void => void execFileSync(program, args, { stdio: 'pipe' })
const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))

const disk = join(order.dir, 'disk')
const mounted = join(order.dir, 'mounted')
const store = join(mounted, 'store')

function makeDisk(): void {
  run('mount', '-t', 'tmpfs', '-o', `size=${DISK_MIB + 8}m`, 'none', order.dir)
  mkdirSync(mounted)
  run('truncate', '-s', `${DISK_MIB}M`, disk)
  run('mkfs.xfs', '-q', disk)
  run('mount', '-o', 'loop', disk, mounted)
}

/** Loaded and waiting: a process takes longer to start than a round. */
function newWriter(): ChildProcess {
  const script = fileURLToPath(new URL('./power-loss-writer.ts', import.meta.url))
  return fork(script, [], { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] })
}

async function loseThePower(writer: ChildProcess, round: number, promises: Promises): Promise<boolean> {
  const lines = createInterface({ input: writer.stdout ?? process.stdin })
  let ready = (): void => {}
  const opened = new Promise<void>(resolve => {
    ready = resolve
  })
  let opening = true
  lines.on('line', line => {
    if (line === 'ready') {
      opening = false
      ready()
    } else promises.hear(line)
  })
  const close = once(lines, 'close')
  const exit = once(writer, 'exit')
  writer.send({ dir: store, round, unsynced: order.unsynced } satisfies WriterOrder)
  if (round % OPENING_ROUNDS === OPENING_ROUNDS - 1) await sleep(Math.random() * MOST_OPENING_MS)
  else {
    await Promise.race([opened, exit])
    await sleep(Math.random() * MOST_WRITING_MS)
  }
  run('xfs_io', '-x', '-c', 'shutdown', mounted)
  writer.kill('SIGKILL')
  await Promise.all([close, exit])
  return opening
}

async function main(): Promise<void> {
  makeDisk()
  const promises = new Promises()
  let next = newWriter()
  for (let round = 0; round < order.rounds; round++) {
    const writer = next
    next = newWriter()
    const begin = performance.now()
    const before = promises.acknowledged
    const opening = await loseThePower(writer, round, promises)
    run('umount', mounted)
    run('mount', '-o', 'loop', disk, mounted)
    const again = await openShardStore(store, { log: quietLog, clock })
    const { checked, lost, wrong, more } = await promises.hold(again)
    await again.close()
    const acknowledged = promises.acknowledged - before
    const tookMs = Math.round(performance.now() - begin)
    const seen: RoundSeen = { round, acknowledged, checked, lost, wrong, more, opening, tookMs }
    process.stdout.write(`${JSON.stringify(seen)}\n`)
  }
  next.disconnect()
  run('umount', mounted)
}

await main()
