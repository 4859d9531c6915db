/** `diapause plan [GROUP]`: who would restore what if a host died now, in which order, why, and how long it would take. */
import type { Command } from 'commander'
import type { ApiClient } from './client.ts'
import type { GroupPlan, PlannedLoss, PlannedMove, PlannedStarts } from './plan-view.ts'
import { obstacleText } from './format-places.ts'
import { plural } from './plural.ts'
import { listed, span } from './why-words.ts'

interface PlanOptions {
  readonly host?: string
  readonly json?: boolean
}

/** `command`: with the options of all commands that speak to a peer. */
export function planCommand(
  command: Command,
  clientOf: (options: object) => Promise<ApiClient>,
  print: (text: string) => void
): void {
  command
    .description('show who would restore what if a host died now, in which order, and how long it would take')
    .option('--host <name>', 'if this host died (default: each that runs VMs, one at a time)')
    .action(async (group: string | undefined, options: PlanOptions) => {
      const plans = await (await clientOf(options)).plan({ group, host: options.host })
      print(options.json === true ? JSON.stringify(plans, null, 2) : planText(plans))
    })
}

export function planText(plans: readonly GroupPlan[]): string {
  if (plans.length === 0) return 'there are no groups'
  return plans.flatMap((plan, at) => [...(at === 0 ? [] : ['']), ...groupText(plan)]).join('\n')
}

function groupText({ group, epoch, resting, losses }: GroupPlan): string[] {
  if (resting) return [`group ${group} rests at epoch ${epoch}: the death of a host means nothing to it`]
  const back = epoch === 0 ? 'no epoch is committed: its VMs would boot' : `back to epoch ${epoch}`
  if (losses.length === 0) return [`group ${group}: no living host runs VMs of it (${back})`]
  return [`group ${group} (${back})`, ...losses.flatMap(lossText)]
}

function lossText(loss: PlannedLoss): string[] {
  const { host, vms, moves, homeless, obstacle } = loss
  const nothing = vms.length === 0 ? ' none of its VMs run there' : ''
  const head = `  if ${host} died:${nothing}`
  if (obstacle !== undefined && obstacle.kind !== 'no-room') {
    return [head, `    NOT BACK: ${obstacleText(obstacle, host)}, and the group stays down`]
  }
  return [
    head,
    ...moves.map(move => `    ${moveText(move)}`),
    ...homeless.map(({ vm, memoryMiB }) => `    ${vm} (${memoryMiB} MiB): NO HOST HAS ROOM, and the group stays down`),
    ...(homeless.length > 0 ? [] : startsAndTimes(loss))
  ]
}

const startsAndTimes = (loss: PlannedLoss): string[] =>
  [...loss.together.flatMap(each => startsText(each, loss)), timesText(loss)].map(line => `    ${line}`)

function moveText({ vm, to, memoryMiB, promisedMiB, givesMiB, standby, columns, shares }: PlannedMove): string {
  const room =
    givesMiB === null ? `${promisedMiB} MiB promised there` : `${promisedMiB} of ${givesMiB} MiB promised there`
  const reasons = [
    ...(standby ? ['it keeps a copy ready'] : []),
    room,
    ...(columns > 0 ? [`${plural(columns, 'column')} of its image at hand`] : []),
    ...(shares === null ? [] : [`SHARES A ${shares.toUpperCase()} with a VM to be apart from: no other way`])
  ]
  return `${vm} (${memoryMiB} MiB) goes to ${to}: ${reasons.join(', ')}`
}

function startsText({ starts, waits }: PlannedStarts, { unmeasured }: PlannedLoss): string[] {
  const times = starts.map(({ vm, on, atMs, without }) => {
    const when = unmeasured.includes(vm) ? 'no restore of it measured yet' : `after ${span(atMs)}`
    const late = without.length === 0 ? '' : `, without ${listed(without)}`
    return `${vm} on ${on ?? 'no host'} (${when}${late})`
  })
  if (starts.length === 1) return [`${times[0]} starts when it is ready: it waits for nobody's answers`]
  const reasons = waits.map(({ vm, waitsFor, network, answers, answerMs }) => {
    return `  ${vm} waits for ${waitsFor} (${network}: ${plural(answers, 'answer')}, ${answerMs} ms each)`
  })
  return [`${listed(times)} start together:`, ...reasons]
}

/** The parts that were measured, and their sum where all were. */
function timesText({ detectMs, decideMs, totalMs, together }: PlannedLoss): string {
  const part = (name: string, ms: number | null): string => `${name} ${ms === null ? 'not measured yet' : span(ms)}`
  const lastMs = Math.max(0, ...together.flatMap(({ starts }) => starts.map(({ atMs }) => atMs)))
  const parts = [part('detection', detectMs), part('decision', decideMs), part('last VM', lastMs === 0 ? null : lastMs)]
  const total = totalMs === null ? '' : `; all run ${span(totalMs)} after the first suspicion`
  return `as the last time: ${parts.join(', ')}${total}`
}
