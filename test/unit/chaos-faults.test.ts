import { spawn } from 'node:child_process'
import { describe, expect, it, vi } from 'vitest'
import { configSchema } from '../../config/schema.ts'
import { beginCounted, type Counted, type Fault, nothing, type Target } from '../chaos/fault.ts'
import { FAULTS } from '../chaos/faults/list.ts'
import { PARTITION_LEAST_MS } from '../chaos/faults/network.ts'
import { killPeer } from '../chaos/faults/processes.ts'
import { upgradeWithin } from '../chaos/faults/upgrade.ts'
import { needsPrograms } from '../chaos/faults/tools.ts'
import { requireNeeds } from '../chaos/one-run.ts'

vi.mock('../demo/processes.ts', async original => ({
  ...(await original<typeof import('../demo/processes.ts')>()),
  waitUntil: async (gone: () => boolean) => gone() // without the patience
}))

const target = (parts: Partial<Target> = {}): Target & { random: () => number } => {
  const host = { name: 'h1', address: '', port: '' }
  return { random: () => 0, host, ...parts } as Target & { random: () => number }
}
const step = { seed: 7, lastsMs: 1_500 }
const none = (): Record<Counted, number> => ({ kills: 0, powerLosses: 0, partitions: 0 })

const fault = (parts: Partial<Fault>): Fault => ({
  name: 'one',
  about: 'it fails',
  lasts: { leastMs: 0, mostMs: 0 },
  reach: 'one',
  begin: async () => nothing,
  ...parts
})

describe('a fault that begins', () => {
  it('counts as what was there before it', async () => {
    let peers = 2
    const counts = none()
    const heal = async (): Promise<void> => {}
    const begin = async () => {
      peers = 0
      return heal
    }
    const kills = fault({ counts: { as: 'kills', of: () => peers }, begin })
    expect(await beginCounted(kills, target(), step, counts)).toBe(heal)
    expect(counts).toEqual({ ...none(), kills: 2 })
    await beginCounted(kills, target(), step, counts)
    expect(counts.kills).toBe(2)
  })

  it('does not count where it could not', async () => {
    const counts = none()
    const begin = async () => Promise.reject(new Error('no such program'))
    const failing = fault({ counts: { as: 'powerLosses', of: () => 3 }, begin })
    await expect(beginCounted(failing, target(), step, counts)).rejects.toThrow('no such program')
    expect(counts).toEqual(none())
  })

  it('is told how long it lasts, and hits whom it has counted', async () => {
    const drawn: number[] = []
    const begin = async ({ random }: Target) => {
      drawn.push(random())
      return nothing
    }
    const lasting: number[] = []
    const of = ({ random }: Target, lastsMs: number) => {
      lasting.push(lastsMs)
      return random()
    }
    const counts = none()
    await beginCounted(fault({ counts: { as: 'partitions', of }, begin }), target(), step, counts)
    expect(lasting).toEqual([1_500])
    expect(drawn).toEqual([counts.partitions])
    await beginCounted(fault({ begin }), target(), { ...step, seed: 8 }, counts)
    expect(drawn[1]).not.toBe(drawn[0])
  })
})

describe('what a fault needs', () => {
  it('is refused where a program is not there, with what to install', () => {
    expect(needsPrograms('sh')).not.toThrow()
    expect(needsPrograms('sh', 'no-such-program')).toThrow(
      expect.objectContaining({
        name: 'UsageError',
        code: 'CHAOS_TOOLS',
        message: 'no-such-program missing: run  sudo apt-get install -y util-linux'
      })
    )
  })

  it('is asked of all scenarios before the first begins, once', () => {
    const asked: string[] = []
    const needing = (name: string) => ({ ...fault({}), name, needs: () => void asked.push(name) })
    const faults = new Map(['one', 'two'].map(name => [name, needing(name)]))
    const scenario = (...names: string[]) => ({ name: 'any', about: '', faults: names, rounds: 1, round: () => [] })
    requireNeeds([scenario('one'), scenario('one', 'two')], faults)
    expect(asked).toEqual(['one', 'two'])
  })

  it('is asked for before anything begins, of all but those that need nothing', () => {
    const [processes, cuts, damage] = [/^(kill|stop)-/, /^(cut-off|mute|deaf|partition|bridge)$/, /rot$|truncation$/]
    for (const { name, needs, prepare } of FAULTS.values()) {
      const plain = [processes, cuts, damage].some(kind => kind.test(name))
      expect(needs !== undefined || prepare !== undefined, name).toBe(!plain)
    }
  })
})

it('a kill that does not kill is no kill', async () => {
  const child = spawn('sleep', ['60'], { stdio: 'ignore' })
  const pid = child.pid ?? 0
  const parts = { peerPid: () => pid, pids: () => [pid] }
  await expect(killPeer.begin(target(parts))).rejects.toMatchObject({
    code: 'CHAOS_FAULT',
    message: `${pid} on h1 survived kill -9`
  })
})

it('an upgrade after which the next peer may never be restarted is told, with the reasons', async () => {
  const told: string[] = []
  const waits = async () => ['epochs fail since 12 s', 'a VM is restored']
  const parts = {
    scratchDir: '/nowhere',
    others: [],
    restart: async () => {},
    waits,
    unwell: (what: string) => void told.push(what)
  }
  const heal = await upgradeWithin(0).begin(target(parts))
  expect(told).toEqual([
    expect.stringMatching(
      /^0 s after its start with .*the next peer may not be restarted: epochs fail since 12 s; a VM/
    )
  ])
  await heal()
  expect(told).toHaveLength(2)
})

it('a partition that counts lasts as long as a lease does', () => {
  expect(PARTITION_LEAST_MS).toBe(configSchema.shape.lease.parse(undefined).durationMs)
})
