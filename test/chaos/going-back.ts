/**
 * The end of a run: every epoch that is kept is gone back to, while as many hosts are gone as may be without the rest being no
 * majority, and no more than the code bears. So what is restored comes from the columns of those that are left, parity with them.
 */
import { hasCode } from '../../node/errors.ts'
import type { ApiClient } from '../../node/edge/client.ts'
import { codeFor } from '../demo/cluster.ts'
import { GROUP } from '../scenarios/bank.ts'
import { all } from './fault.ts'
import { type Listener, moneyMoves } from './observers.ts'
import { type Audit, money } from './promises.ts'
import type { Rig } from './rig.ts'
import { Draw, mix } from './scenario.ts'
import type { RigTarget } from './target.ts'
import type { Timeline } from './timeline.ts'

/** Beside the numbers of rounds. */
const DRAWN_LAST = -2

/** Of so many hosts. */
export const mostAway = (hosts: number): number => Math.min(codeFor(hosts).m, Math.ceil(hosts / 2) - 1)

/** Numbers of hosts, from 0: the same for the same seed. */
export function awayOf(seed: number, hosts: number): number[] {
  const draw = new Draw(mix(seed, DRAWN_LAST))
  const left = Array.from({ length: hosts }, (_, i) => i)
  return Array.from({ length: mostAway(hosts) }, () => left.splice(draw.between(0, left.length - 1), 1)[0] as number)
}

export interface WayBack {
  readonly rig: Rig
  readonly listener: Listener
  readonly seed: number
  readonly nonces: readonly string[]
  readonly timeline: Timeline
  /** Of a peer that runs. */
  client(): ApiClient
  audit(): Promise<Audit>
  judge(what: string, faults: readonly string[]): void
}

/** Resolves when all hosts have been started again. Rejects where something that had to come did not. */
export async function goBack(way: WayBack): Promise<void> {
  const { rig, seed, timeline } = way
  const { bank, targets } = rig
  const held = await bank.until('epochs to go back to', () => holdAll(way.client()))
  const away = awayOf(seed, targets.length).map(number => targets[number] as RigTarget)
  for (const { host } of away) timeline.add('fault', 'its power is cut, and it stays away', { host: host.name })
  const heal = all(await Promise.all(away.map(target => target.halt())))
  try {
    await moneyMoves(bank)
    for (const epoch of held) await restored(way, epoch)
  } finally {
    await heal()
    for (const { host } of away) timeline.add('heal', 'its power is back', { host: host.name })
  }
}

async function restored({ rig: { bank }, listener, nonces, ...way }: WayBack, epoch: number): Promise<void> {
  const { generation, lastEpoch } = await way.client().restore(GROUP, { epoch, force: false })
  listener.history.onBack({ generation, epoch, lastEpoch })
  await bank.until('all VMs to be restored', () =>
    bank.vms.every(vm => (listener.runs.get(vm) ?? 0) >= generation) ? true : undefined
  )
  await moneyMoves(bank)
  way.judge(`epoch ${epoch} is restored whole`, money(await way.audit(), nonces))
}

/** Undefined where one was forgotten before it could be held, as the next epoch was committed, and where there is none. */
async function holdAll(client: ApiClient): Promise<number[] | undefined> {
  const { epochs } = await client.epochs(GROUP)
  try {
    for (const { epoch } of epochs) await client.holdEpoch(GROUP, epoch, 'chaos')
    return epochs.length === 0 ? undefined : epochs.map(({ epoch }) => epoch)
  } catch (error) {
    if (hasCode(error, 'EPOCH_NOT_KEPT')) return undefined
    throw error
  }
}
