/** Many proposers, one register: everybody gets through within the default deadline, in rounds that do not run away. */
import { expect, test } from 'vitest'
import type { DecisionTrace } from '../../protocols/register/trace.ts'
import { HONEST } from '../sim/register-bugs.ts'
import { type Life, World } from '../sim/register-world.ts'

const EACH = 5
/** The defaults of the config. */
const SETTINGS = { roundTimeoutMs: 500, giveUpMs: 5_000 }

async function contend(seed: number, proposers: number) {
  const traces: DecisionTrace[] = []
  const onDecision = (trace: DecisionTrace): number => traces.push(trace)
  const world = new World(seed, { peers: proposers, voters: 5, wiring: HONEST, settings: SETTINGS, onDecision })
  const failed: unknown[] = []
  const work = async ({ registers }: Life, name: string): Promise<void> => {
    for (let i = 0; i < EACH; i++) {
      const id = `${name}/${i}`
      const add = (current: unknown): unknown => {
        const list = (current as string[] | null) ?? []
        return list.includes(id) ? undefined : [...list, id]
      }
      await registers.change('busy', add).catch((error: unknown) => failed.push(error))
    }
  }
  for (const peer of world.peers) {
    world.kernel.at(0, 'start', () => world.start(peer, life => void work(life, peer.name)))
  }
  await world.kernel.run(60_000, () => false)
  const changes = traces.filter(({ kind }) => kind === 'change')
  return { failed, changes, mostRounds: Math.max(...changes.map(({ rounds }) => rounds)) }
}

test.each([5, 10, 20])('%i proposers that change one register all finish', async proposers => {
  for (let seed = 1; seed <= 5; seed++) {
    const { failed, changes, mostRounds } = await contend(seed, proposers)
    expect(failed, `seed ${seed}`).toEqual([])
    expect(changes).toHaveLength(EACH * proposers)
    expect(changes.every(({ outcome }) => outcome === 'chosen' || outcome === 'learned')).toBe(true)
    expect(mostRounds, `seed ${seed}`).toBeLessThan(3 * Math.max(10, proposers))
  }
})
