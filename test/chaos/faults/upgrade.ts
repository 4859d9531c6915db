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
 * After this the next peer is restarted, whatever `diapause upgrade check` would say: an operator who does not wait for ever. Also where
 * a network is broken meanwhile, which heals only when this has ended. A guess.
 */
const PATIENCE_MS = 30_000
const ASK_MS = 500

const treeOf = ({ scratchDir }: Pick<Home, 'scratchDir'>): string => join(scratchDir, 'newer')

export const upgradeRoll: Fault = {
  name: 'upgrade-roll',
  about: 'all peers are upgraded to the next version, one after the other, and then go back',
  lasts: { leastMs: 0, mostMs: 20_000 },
  reach: 'all',
  async prepare(home) {
    if (!existsSync(treeOf(home))) makeNewer(treeOf(home))
    return {}
  },
  async begin(target) {
    const all = [target, ...target.others]
    await roll(all, NEWER, each => mainOf(treeOf(each)))
    return once(() => roll(all, programVersion(), () => undefined))
  }
}

async function roll(
  all: readonly Target[],
  version: string,
  program: (of: Target) => string | undefined
): Promise<void> {
  for (const target of all) {
    await target.restart(program(target))
    await wellAgain(target, version)
  }
}

/** Asked of the one that was restarted, who is the last to know. */
async function wellAgain(target: Target, version: string): Promise<void> {
  const endMs = performance.now() + PATIENCE_MS
  while ((await target.waits(version)).length > 0 && performance.now() < endMs) await sleep(ASK_MS)
}
