/**
 * A rolling upgrade to the next release, and back: one peer after the other is told to stop, and started with another program.
 * Epochs go on meanwhile, and members of two versions agree on them.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { programVersion } from '../../../node/host/version.ts'
import { mainOf, makeNewer, NEWER } from '../../scenarios/newer.ts'
import { type Fault, type Home, once, type Target } from '../fault.ts'

/**
 * After this the next peer is restarted, whatever `diapause upgrade check` would say: an operator who does not wait for ever. A network may
 * be broken meanwhile, which heals only when this has ended; where nothing else is broken it is a promise that is. A guess.
 */
const PATIENCE_MS = 30_000
const ASK_MS = 500

const treeOf = ({ scratchDir }: Pick<Home, 'scratchDir'>): string => join(scratchDir, 'newer')

/** `patienceMs`: for each peer. */
export const upgradeWithin = (patienceMs: number): Fault => ({
  name: 'upgrade-roll',
  about: 'all peers are upgraded to the next version, one after the other, and then go back',
  lasts: { leastMs: 0, mostMs: 20_000 },
  reach: 'all',
  async prepare(home) {
    if (!existsSync(treeOf(home))) makeNewer(treeOf(home))
    return {}
  },
  async begin(target) {
    const roll = async (version: string, program: (of: Target) => string | undefined): Promise<void> => {
      for (const each of [target, ...target.others]) {
        await each.restart(program(each))
        await wellAgain(each, version, patienceMs)
      }
    }
    await roll(NEWER, each => mainOf(treeOf(each)))
    return once(() => roll(programVersion(), () => undefined))
  }
})

export const upgradeRoll = upgradeWithin(PATIENCE_MS)

/** Asked of the one that was restarted, who is the last to know. */
async function wellAgain(target: Target, version: string, patienceMs: number): Promise<void> {
  const endMs = performance.now() + patienceMs
  for (;;) {
    const reasons = await target.waits(version)
    if (reasons.length === 0) return
    if (performance.now() > endMs) {
      const late = `${patienceMs / 1_000} s after its start with ${version} the next peer may not be restarted`
      return target.unwell(`${late}: ${reasons.join('; ')}`)
    }
    await sleep(ASK_MS)
  }
}
