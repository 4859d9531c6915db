/** What a peer takes of its host at one moment, from outside: /proc, its disk, a question with a clock; and what it says of its heap. */
import { once } from 'node:events'
import { lstatSync, readdirSync, readFileSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { Sample } from './bounds.ts'
import type { DamagedAt } from './redundancy.ts'
import type { RigTarget } from './target.ts'

const MIB = 1 << 20

/** Rejects where its peer does not run, or does not answer: in a time without faults neither is to be. */
export async function takeSample(target: RigTarget, atMs: number): Promise<Sample> {
  const pid = target.peerPid()
  if (pid === undefined) throw new Error(`${target.name} does not run`)
  const startMs = performance.now()
  await target.peer.client.status()
  const answerMs = performance.now() - startMs
  const metrics = await metricsOf(target.peer.socketPath)
  const status = readFileSync(`/proc/${pid}/status`, 'latin1')
  const kept = (name: string): number => (Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1]) * 1024) / MIB
  const { blocks, bfree } = await statfs(target.disk.mounted)
  return {
    peer: target.name,
    pid,
    atMs,
    rssMiB: kept('VmRSS'),
    anonMiB: kept('RssAnon'),
    heapMiB: metrics('nodejs_heap_size_used_bytes') / MIB,
    heapTakenMiB: metrics('nodejs_heap_size_total_bytes') / MIB,
    externalMiB: metrics('nodejs_external_memory_bytes') / MIB,
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    vms: target.vms().length,
    restores: metrics('diapause_vm_restore_seconds_count'),
    disk: (blocks - bfree) / blocks,
    storedMiB: sizeOf(target.dataDir) / MIB,
    answerMs,
    loopMeanMs: metrics('nodejs_eventloop_lag_mean_seconds') * 1_000,
    loopP99Ms: metrics('nodejs_eventloop_lag_p99_seconds') * 1_000
  }
}

/** From now on its peer counts the delays of its event loop anew: those under a fault say nothing. */
export const countLoopAnew = async ({ peer }: RigTarget): Promise<void> => void (await metricsOf(peer.socketPath))

/** Streams of which its peer stores columns. */
export const streamsStored = async ({ peer }: RigTarget): Promise<number> =>
  (await metricsOf(peer.socketPath))('diapause_store_streams')

export async function damagedAt({ host, peer }: RigTarget): Promise<DamagedAt> {
  const { redundancy } = await peer.client.status()
  return { host: host.name, damaged: redundancy?.repaired.damaged ?? NaN }
}

/** All that a folder takes on its disk, bytes; what goes meanwhile takes nothing. */
function sizeOf(folder: string): number {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map(name => (lstatSync(join(folder, name), { throwIfNoEntry: false })?.blocks ?? 0) * 512)
    .reduce((sum, bytes) => sum + bytes, 0)
}

/** What the peer says of itself, by name; NaN for what it does not say. */
async function metricsOf(socketPath: string): Promise<(name: string) => number> {
  const asked = request({ socketPath, path: '/metrics' }).end()
  const [response] = (await once(asked, 'response')) as [IncomingMessage]
  const body = await text(response)
  return name => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(body)?.[1])
}
