/**
 * The switch alone, with synthetic frames and no VM: one switch between two sockets, and two switches joined in memory.
 * One bound, on the way of a single frame through one switch; the rest is reported as it is, the machine decides it.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { toPacket } from '../../node/switch/ethernet.ts'
import { createSwitch } from '../../node/switch/switch.ts'
import { clock, memoryLog } from '../contract/real-clock.ts'
import { frameOf, MemoryNetwork, recordOf } from '../contract/switch-support.ts'
import { atMost, type Check, note } from '../measure.ts'
import type { Measured } from './list.ts'
import type { SwitchLoad, SwitchRate } from './switch-ends.ts'

const FRAME_BYTES = [64, 1500, 9000]
const DURATION_MS = 1_500
const SINGLES = 2_000
/** What a peer may add to a round trip at most; here with both sockets and the other thread's turns in it. */
const ONE_WAY_US = 150

export async function measureSwitchAlone(progress: (line: string) => void): Promise<Measured> {
  const checks: Check[] = []
  for (const peers of [1, 2]) {
    for (const bytes of FRAME_BYTES) {
      const name = `${peers === 1 ? 'one switch' : 'two switches'}, ${bytes} bytes`
      progress(name)
      const rate = await measure(peers, bytes)
      checks.push(
        note(`${name}: frames`, rate.framesPerS, '1/s'),
        note(`${name}: throughput`, rate.gbitPerS, 'Gb/s'),
        peers === 1
          ? atMost(`${name}: one way, median`, rate.oneWayMedianUs, ONE_WAY_US, 'µs')
          : note(`${name}: one way, median`, rate.oneWayMedianUs, 'µs'),
        note(`${name}: one way, p99`, rate.oneWayP99Us, 'µs')
      )
    }
  }
  return { checks, details: { durationMs: DURATION_MS, singles: SINGLES } }
}

async function measure(peers: number, bytes: number): Promise<SwitchRate> {
  const directory = await mkdtemp(join(tmpdir(), 'diapause-bench-'))
  const network = new MemoryNetwork()
  const owners = { a: 'p1', b: `p${peers}` }
  const switches = new Map(
    ['p1', 'p2'].map(self => [
      self,
      createSwitch({ self, transport: network.transport(self), clock, log: memoryLog(), mayAct: () => true })
    ])
  )
  const attach = async (vm: 'a' | 'b') => {
    const nicPath = join(directory, vm)
    const own = switches.get(owners[vm])
    own?.setGroup(recordOf(owners))
    const nic = await own?.attach({ group: 'bank', vm, generation: 1, epoch: 0, nicPath })
    nic?.release()
    return { nic, nicPath }
  }
  const a = await attach('a')
  const b = await attach('b')
  try {
    const packet = toPacket(frameOf('a', 'b', 1, bytes))
    const workerData: SwitchLoad = {
      fromPath: a.nicPath,
      toPath: b.nicPath,
      packet,
      durationMs: DURATION_MS,
      singles: SINGLES
    }
    const worker = new Worker(new URL('switch-ends.ts', import.meta.url), { workerData })
    return await new Promise<SwitchRate>((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    })
  } finally {
    await Promise.all([a.nic?.detach(), b.nic?.detach()])
    await rm(directory, { recursive: true })
  }
}
