/**
 * A soak: nothing is broken, epochs are taken one after the other, and what each peer takes of its host is written down. What grows a
 * little with every epoch is seen here and nowhere else.
 */
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { type IncomingMessage, request } from 'node:http'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { messageOf } from '../../node/errors.ts'
import { hostOf, Listener, moneyMoves } from './observers.ts'
import { money } from './promises.ts'
import { Rig } from './rig.ts'
import type { SoakSample, SoakSeen } from './soak-judge.ts'
import type { RunOptions } from './supervisor.ts'
import type { RigTarget } from './target.ts'

const MIB = 1 << 20
/** Twelve of a minute make a median. */
const SAMPLE_MS = 5_000
const TELL_MS = 60_000

export interface SoakOptions extends Pick<RunOptions, 'hosts' | 'timeline' | 'signal' | 'keep'> {
  readonly minutes: number
  readonly intervalMs: number
}

export interface SoakOutcome extends SoakSeen {
  readonly hosts: number
  readonly hypervisor: string
}

export async function runSoak(options: SoakOptions): Promise<SoakOutcome> {
  const { hosts, minutes, intervalMs, timeline, signal } = options
  const broken: string[] = []
  const breaks = (what: string) => {
    broken.push(what)
    timeline.add('broken', what)
  }
  const listener = new Listener(timeline)
  let working = false
  const rig = await Rig.start({
    hosts,
    faults: [],
    epochMs: intervalMs,
    tell: {
      event: seen => listener.event(seen),
      peer(name, what) {
        timeline.add('peer', what, { host: hostOf(name) })
        if (working) breaks(`${hostOf(name)}: ${what}`)
      }
    }
  })
  listener.know(new Map(rig.bank.cluster.peers.map(({ id, name }) => [id, name])))
  const samples: SoakSample[] = []
  let hypervisor = ''
  let epochs = 0
  try {
    working = true
    hypervisor = (await rig.bank.cluster.alive[0]?.client.status())?.hypervisor ?? ''
    const { nonces } = await rig.bank.audit()
    const before = listener.epochs
    const startMs = performance.now()
    await watch(rig, { minutes, signal, samples, tell: what => timeline.add('check', what) })
    // What was taken meanwhile says nothing where somebody has interrupted it.
    epochs = listener.epochs - before
    timeline.add('check', `${epochs} epochs in ${Math.round((performance.now() - startMs) / 1000)} s`)
    await moneyMoves(rig.bank)
    for (const fault of money(await rig.bank.audit(), nonces)) breaks(`money is conserved: ${fault}`)
  } catch (error) {
    breaks(messageOf(error))
  } finally {
    working = false
    await options.keep(rig.bank.cluster.dir, broken.length > 0).catch(() => {}) // logs are not worth an error
    for (const fault of await rig.stop()) breaks(`left behind: ${fault}`)
  }
  return { hosts, hypervisor, minutes, intervalMs, samples, epochs, broken }
}

interface Watch {
  readonly minutes: number
  readonly signal: AbortSignal
  readonly samples: SoakSample[]
  tell(what: string): void
}

async function watch(rig: Rig, { minutes, signal, samples, tell }: Watch): Promise<void> {
  const startMs = performance.now()
  let toldMs = Number.NEGATIVE_INFINITY
  for (let atMs = 0; atMs < minutes * 60_000 && !signal.aborted; atMs = performance.now() - startMs) {
    const now = await Promise.all(rig.targets.map(target => takeSample(target, atMs)))
    samples.push(...now)
    if (atMs - toldMs >= TELL_MS) {
      toldMs = atMs
      tell(now.map(told).join('; '))
    }
    await sleep(SAMPLE_MS, undefined, { signal }).catch(() => {}) // told to end
  }
}

const told = ({ peer, rssMiB, heapMiB, heapTakenMiB, externalMiB, descriptors, diskMiB }: SoakSample): string =>
  `${peer} ${rssMiB.toFixed(0)} MiB (heap ${heapMiB.toFixed(0)} of ${heapTakenMiB.toFixed(0)}, buffers ${externalMiB.toFixed(0)}), ${descriptors} descriptors, disk ${diskMiB.toFixed(0)} MiB`

async function takeSample(target: RigTarget, atMs: number): Promise<SoakSample> {
  const pid = target.peerPid()
  if (pid === undefined) throw new Error(`${target.name} does not run`)
  const startMs = performance.now()
  await target.peer.client.status()
  const answerMs = performance.now() - startMs
  const metrics = await metricsOf(target.peer.socketPath)
  const status = readFileSync(`/proc/${pid}/status`, 'latin1')
  const kept = (name: string): number => (Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1]) * 1024) / MIB
  const { blocks, bfree, bsize } = await statfs(target.disk.mounted)
  return {
    peer: target.name,
    atMs,
    rssMiB: kept('VmRSS'),
    anonMiB: kept('RssAnon'),
    heapMiB: metrics('nodejs_heap_size_used_bytes') / MIB,
    heapTakenMiB: metrics('nodejs_heap_size_total_bytes') / MIB,
    externalMiB: metrics('nodejs_external_memory_bytes') / MIB,
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    diskMiB: ((blocks - bfree) * bsize) / MIB,
    answerMs
  }
}

/** What the peer says of itself, by name; NaN for what it does not say. */
async function metricsOf(socketPath: string): Promise<(name: string) => number> {
  const asked = request({ socketPath, path: '/metrics' }).end()
  const [response] = (await once(asked, 'response')) as [IncomingMessage]
  const body = await text(response)
  return name => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(body)?.[1])
}
