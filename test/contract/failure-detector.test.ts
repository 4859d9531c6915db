import { type ChildProcess, fork } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { afterEach, expect, test } from 'vitest'
import type { DetectorSettings } from '../../config/schema.ts'
import type { Liveness } from '../../node/ports.ts'
import { SETTINGS } from '../sim/swim-world.ts'
import { freePort } from './loopback.ts'

const CHILD = new URL('failure-detector-child.ts', import.meta.url)

interface Seen {
  readonly peer: string
  readonly liveness: Liveness
  readonly why: string
  readonly atMs: number
}

interface Peer {
  readonly id: string
  readonly start: () => void
  child: ChildProcess | undefined
  connected: number
  seen: Seen[]
}

const children: ChildProcess[] = []
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
})

async function until(what: () => boolean): Promise<void> {
  while (!what()) await sleep(10)
}

/** Peers in processes of their own, all linked to all. */
async function cluster(count: number, settings: DetectorSettings = SETTINGS): Promise<Peer[]> {
  const keys = await Promise.all(Array.from({ length: count }, () => generateKeyPair('Ed25519')))
  const members: { id: string; name: string; address: string }[] = []
  for (const [i, key] of keys.entries()) {
    const address = `/ip4/127.0.0.1/tcp/${await freePort()}`
    members.push({ id: peerIdFromPrivateKey(key).toString(), name: `peer-${i}`, address })
  }
  const peers = members.map(({ id, address }, i): Peer => {
    const key = Buffer.from(keys[i]?.raw ?? []).toString('hex')
    const start = (): void => {
      const child = fork(CHILD, [JSON.stringify({ key, listen: address, members, settings })])
      children.push(child)
      peer.child = child
      child.on('message', (message: { kind: string; connected: number } & Seen) => {
        if (message.kind === 'change') peer.seen.push(message)
        else peer.connected = message.connected
      })
    }
    const peer: Peer = { id, start, child: undefined, connected: 0, seen: [] }
    return peer
  })
  for (const peer of peers) peer.start()
  await until(() => peers.every(peer => peer.connected === count - 1))
  return peers
}

const holds = (by: Peer, about: Peer): Liveness => by.seen.findLast(seen => seen.peer === about.id)?.liveness ?? 'alive'

test('a killed process is declared dead by everyone, nobody else is, and it comes back', async () => {
  const peers = await cluster(5)
  const victim = peers[2] as Peer
  const others = peers.filter(peer => peer !== victim)
  await sleep(500)
  victim.child?.kill('SIGKILL')
  await until(() => others.every(peer => holds(peer, victim) === 'dead'))
  victim.start()
  await until(() => others.every(peer => holds(peer, victim) === 'alive'))
  for (const peer of others) {
    expect(peer.seen.filter(seen => seen.liveness === 'dead' && seen.peer !== victim.id)).toEqual([])
  }
})

test('a stopped process is declared dead, accuses nobody on waking, and is alive to all again', async () => {
  const peers = await cluster(4)
  const sleeper = peers[1] as Peer
  const others = peers.filter(peer => peer !== sleeper)
  await sleep(500)
  sleeper.child?.kill('SIGSTOP')
  await until(() => others.every(peer => holds(peer, sleeper) === 'dead'))
  await sleep(8_000) // long enough for the others to give up its connections
  sleeper.seen = []
  sleeper.child?.kill('SIGCONT')
  await until(() => others.every(peer => holds(peer, sleeper) === 'alive'))
  await until(() => sleeper.connected === 3)
  await sleep(1_500)
  expect(sleeper.seen.filter(seen => seen.liveness === 'dead')).toEqual([])
  for (const peer of others) {
    expect(holds(peer, sleeper)).toBe('alive')
    expect(peer.seen.filter(seen => seen.liveness === 'dead' && seen.peer !== sleeper.id)).toEqual([])
  }
})
