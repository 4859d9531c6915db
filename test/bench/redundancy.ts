/**
 * The promise of the code as a story of real peers and VMs: m of five hosts die for good while an epoch is taken, fresh ones
 * come in their stead, repair brings all of the redundancy back, then m others die. Every epoch that is kept is restored and
 * audited after each loss. Before, an epoch is taken while a host hangs. (`../scenarios/redundancy.ts` does it.)
 */
import { isWhole, type VerifyReport } from '../../node/edge/redundancy-view.ts'
import { messageOf } from '../../node/errors.ts'
import { atLeast, atMost, type Check, equal, note } from '../measure.ts'
import { Losses, type Restored } from '../scenarios/redundancy.ts'
import type { Measured } from './list.ts'

const K = 3
const M = 2
/** Half of the time after which a request counts as unanswered: whoever waited for the host that hangs would take that long. */
const HUNG_COMMIT_MS = 5_000

interface Seen {
  hung?: { readonly commitMs: number; readonly columnsMissing: number }
  /** Until nothing was missing after a host had hung, and after the first loss. */
  healMs?: number
  repairMs?: number
  repaired?: VerifyReport
  during: string[]
  first: readonly Restored[]
  second: readonly Restored[]
}

export async function measureRedundancy(progress: (line: string) => void): Promise<Measured> {
  progress('starting five peers and two VMs')
  const losses = await Losses.start({ k: K, m: M, keepLast: 4 }, progress)
  const seen: Seen = { during: [], first: [], second: [] }
  let error: string | undefined
  try {
    await tell(losses, seen)
  } catch (reason) {
    error = messageOf(reason)
    progress(`the story has ended early: ${error}`)
  }
  const leftovers = await losses.bank.cluster.stop()
  const checks = [
    ...checksOf(seen),
    equal('told to its end', error === undefined, true),
    equal('leftovers', leftovers.length, 0)
  ]
  return { checks, details: { k: K, m: M, ...seen, leftovers, error: error ?? null } }
}

async function tell(losses: Losses, seen: Seen): Promise<void> {
  await losses.epochs(2)
  seen.hung = await losses.hungDuringEpoch('p5')
  const hungMs = performance.now()
  await losses.redundant()
  seen.healMs = performance.now() - hungMs
  seen.during.push(await losses.loseDuringEpoch('p4', 'p5'))
  seen.first = await losses.restoreAll()
  await losses.replace('p4', 'p6')
  await losses.replace('p5', 'p7')
  const freshMs = performance.now()
  seen.repaired = await losses.redundant()
  seen.repairMs = performance.now() - freshMs
  seen.during.push(await losses.loseDuringEpoch('p2', 'p3'))
  seen.second = await losses.restoreAll()
  await losses.epochs(1)
}

function checksOf({ hung, healMs, repairMs, repaired, first, second }: Seen): Check[] {
  const unsound = (all: readonly Restored[]): number => all.filter(({ sound }) => !sound).length
  const tolerated = Math.min(...(repaired?.images.map(({ tolerates }) => tolerates) ?? [-1]))
  return [
    atMost('hung.commitMs', Math.round(hung?.commitMs ?? Number.POSITIVE_INFINITY), HUNG_COMMIT_MS, 'ms'),
    note('hung.columnsMissing', hung?.columnsMissing ?? -1),
    note('hung.healMs', Math.round(healMs ?? -1), 'ms'),
    atLeast('first.epochsRestored', first.length, 3, ''),
    equal('first.unsound', unsound(first), 0),
    equal('repaired.whole', repaired !== undefined && isWhole(repaired), true),
    atLeast('repaired.tolerates', tolerated, M, 'hosts'),
    note('repaired.ms', Math.round(repairMs ?? -1), 'ms'),
    atLeast('second.epochsRestored', second.length, 3, ''),
    equal('second.unsound', unsound(second), 0)
  ]
}
