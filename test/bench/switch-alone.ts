/**
 * The switch alone, with synthetic frames and no VM: through one peer, and through two that are linked by loopback, each a
 * process with a switch and a transport and nothing else, as a peer is started. This process is both VMs. One bound, on the
 * way of a single frame through one peer; the rest is reported as it is, the machine decides it.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { toPacket } from '../../node/switch/ethernet.ts'
import { frameOf, recordOf } from '../contract/switch-support.ts'
import { type Host, hosts, publicPart } from '../contract/transport-support.ts'
import { atMost, type Check, note } from '../measure.ts'
import type { Measured } from './list.ts'
import { processorUs } from './processor.ts'
import { Ends } from './switch-ends.ts'
import type { SwitchPeerOptions } from './switch-peer.ts'

const FRAME_BYTES = [64, 1500, 9000]
const DURATION_MS = 1_500
const SINGLES = 2_000
/** Before any is measured: code is compiled by then (switch.ts, WARM_PINGS). */
const WARM_SINGLES = 12_000
/** What a peer may add to a round trip at most; here with both sockets and this process's turns in it. */
const ONE_WAY_US = 150

interface Rate {
  readonly framesPerS: number
  readonly gbitPerS: number
  /** Processor time of all peers for a frame among many, and for one with nothing else under way. */
  readonly peerUs: number
  readonly singleUs: number
  readonly oneWayMedianUs: number
  readonly oneWayP99Us: number
}

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
        note(`${name}: processor time`, rate.peerUs, 'µs/frame'),
        peers === 1
          ? atMost(`${name}: one way, median`, rate.oneWayMedianUs, ONE_WAY_US, 'µs')
          : note(`${name}: one way, median`, rate.oneWayMedianUs, 'µs'),
        note(`${name}: one way, p99`, rate.oneWayP99Us, 'µs'),
        note(`${name}: processor time of one alone`, rate.singleUs, 'µs')
      )
    }
  }
  return { checks, details: { durationMs: DURATION_MS, singles: SINGLES } }
}

/** VM a is on the first peer and VM b on the last. */
async function measure(peers: number, bytes: number): Promise<Rate> {
  const directory = await mkdtemp(join(tmpdir(), 'diapause-bench-'))
  const members = await hosts(peers)
  const [first, last] = [members[0], members.at(-1)] as [Host, Host]
  const record = recordOf({ a: first.id, b: last.id })
  const children = members.map(host =>
    startPeer({
      key: Buffer.from(host.key.raw).toString('hex'),
      listen: host.address,
      members: members.map(publicPart),
      record,
      nics: {
        ...(host === first ? { a: join(directory, 'a') } : {}),
        ...(host === last ? { b: join(directory, 'b') } : {})
      }
    })
  )
  try {
    await Promise.all(children.map(child => once(child, 'message')))
    const ends = await Ends.connect(join(directory, 'a'), join(directory, 'b'))
    const packet = toPacket(frameOf('a', 'b', 1, bytes))
    await ends.oneByOne(packet, WARM_SINGLES)
    await ends.flood(packet, DURATION_MS / 3)
    const pids = children.map(({ pid = 0 }) => pid)
    const [beforeUs, { frames, seconds }] = [processorUs(pids), await ends.flood(packet, DURATION_MS)]
    const floodedUs = processorUs(pids)
    const times = (await ends.oneByOne(packet, SINGLES)).toSorted((a, b) => a - b)
    const endUs = processorUs(pids)
    ends.close()
    return {
      framesPerS: frames / seconds,
      gbitPerS: (frames * bytes * 8) / seconds / 1e9,
      peerUs: (floodedUs - beforeUs) / frames,
      singleUs: (endUs - floodedUs) / SINGLES,
      oneWayMedianUs: (times[Math.floor(SINGLES * 0.5)] ?? Infinity) * 1000,
      oneWayP99Us: (times[Math.floor(SINGLES * 0.99)] ?? Infinity) * 1000
    }
  } finally {
    await Promise.all(children.map(stopPeer))
    await rm(directory, { recursive: true })
  }
}

function startPeer(options: SwitchPeerOptions): ChildProcess {
  const script = new URL('switch-peer.ts', import.meta.url)
  return fork(script, [JSON.stringify(options)], { execArgv: ['--max-semi-space-size=1'] }) // as bootstrap.mjs does
}

async function stopPeer(child: ChildProcess): Promise<void> {
  const ended = child.exitCode !== null || once(child, 'exit')
  if (child.connected) child.disconnect()
  await ended
}
