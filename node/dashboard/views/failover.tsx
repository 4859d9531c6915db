/** A failover as it happens, and afterwards what it took: detected, decided, each VM back, each VM whole. */
import { useEffect, useMemo, useState } from 'preact/hooks'
import { aheadOf, useNames, useOverview } from '../live/cluster.ts'
import { events } from '../live/feed.ts'
import { hrefOf } from '../live/route.ts'
import { useValue } from '../live/store.ts'
import { type Failover, failoversOf, isRunning, type Trouble, troublesOf } from '../model/failover.ts'
import { countOf, durationOf, exactOf, listOf } from '../model/text.ts'
import { Mark } from '../parts/marks.tsx'
import { Panel } from '../parts/panel.tsx'
import { Lanes } from './lanes.tsx'

/** On the first page one is shown for so long. A guess: until somebody has come to look. */
const SHOWN_MS = 30 * 60_000
/** Of a cluster that had a bad night the newest. */
const SHOWN = 6

export const useFailovers = (): Failover[] => {
  const all = useValue(events)
  return useMemo(() => failoversOf(all), [all])
}

/** The time by the peer's clock, often enough to see it run; undefined while nothing does. */
function useRunningClock(running: boolean): number {
  const ahead = aheadOf(useOverview())
  const [nowMs, setNow] = useState(Date.now())
  useEffect(() => {
    if (!running) return
    const timer = setInterval(() => setNow(Date.now()), 100)
    return () => clearInterval(timer)
  }, [running])
  return nowMs + ahead
}

/** Above every view while something is wrong with a host: nobody has to be on the right page to see it. */
export function FailoverBanner() {
  const all = useValue(events)
  const nameOf = useNames()
  const running = useFailovers().filter(isRunning)
  const troubles = useMemo(() => troublesOf(all), [all]).filter(({ deadMs }) => deadMs === undefined)
  return (
    <div aria-live="assertive">
      {running.length > 0 ? (
        <a class="banner" href={hrefOf()}>
          <Mark tone="busy">{`${listOf(running.map(({ group }) => group))} on the way back: ${progressOf(running)}`}</Mark>
        </a>
      ) : (
        troubles.length > 0 && (
          <p class="banner">
            <Mark tone="warn">{suspectText(troubles, nameOf)}</Mark>
          </p>
        )
      )}
    </div>
  )
}

const suspectText = (troubles: readonly Trouble[], nameOf: (id: string) => string): string =>
  `${listOf(troubles.map(({ peer }) => nameOf(peer)))} does not answer and is suspected.`

function progressOf(failovers: readonly Failover[]): string {
  const vms = failovers.flatMap(failover => failover.vms)
  return `${vms.filter(({ resumedMs }) => resumedMs !== undefined).length} of ${countOf(vms.length, 'VM')} run`
}

/** The last ones; nothing where there was none lately. */
export function FailoverPanels() {
  const all = useFailovers()
  const nameOf = useNames()
  const anyRuns = all.some(isRunning)
  const nowMs = useRunningClock(anyRuns)
  const recent = all.filter(failover => isRunning(failover) || nowMs - failover.decidedMs < SHOWN_MS).slice(0, SHOWN)
  const [running, over] = [recent.filter(isRunning), recent.filter(failover => !isRunning(failover))]
  return (
    <>
      {running.map(failover => (
        <Panel key={nameOfOne(failover)} {...headOf(failover, nameOf, nowMs)} kind="running">
          <FailoverBody failover={failover} nowMs={nowMs} />
        </Panel>
      ))}
      {over.length > 0 && (
        <Panel title="Lately">
          <div class="lately">
            {over.map((failover, at) => (
              <Past
                key={nameOfOne(failover)}
                failover={failover}
                nowMs={nowMs}
                open={at === 0 && running.length === 0}
              />
            ))}
          </div>
        </Panel>
      )}
    </>
  )
}

const nameOfOne = ({ group, generation }: Failover): string => `${group} ${generation}`

function Past({ failover, nowMs, open }: { failover: Failover; nowMs: number; open: boolean }) {
  const { title, aside } = headOf(failover, useNames(), nowMs)
  return (
    <details open={open}>
      <summary>
        <strong>{title}</strong> {aside} <span class="faint">{exactOf(failover.decidedMs)}</span>
      </summary>
      <FailoverBody failover={failover} nowMs={nowMs} />
    </details>
  )
}

/** Where its time begins. */
const beginOf = ({ suspectedMs, deadMs, decidedMs }: Failover): number => suspectedMs ?? deadMs ?? decidedMs

function headOf(failover: Failover, nameOf: (id: string) => string, nowMs: number) {
  const { group, hosts, byHand, backMs, overtaken } = failover
  const from = beginOf(failover)
  const cause = byHand ? 'taken back by hand' : hosts.length === 0 ? 'taken over' : `lost ${listOf(hosts.map(nameOf))}`
  const title = `${group}: ${cause}`
  if (isRunning(failover)) return { title, aside: <Mark tone="busy">{durationOf(nowMs - from)} so far</Mark> }
  if (backMs === undefined) {
    return { title, aside: <Mark tone="warn">{overtaken ? 'overtaken by a newer generation' : 'over'}</Mark> }
  }
  return { title, aside: <Mark tone="good">back after {durationOf(backMs - from)}</Mark> }
}

function FailoverBody({ failover, nowMs }: { failover: Failover; nowMs: number }) {
  const nameOf = useNames()
  const from = beginOf(failover)
  return (
    <div class="inside">
      <p>{sentenceOf(failover, from, nameOf)}</p>
      <Lanes failover={failover} from={from} to={isRunning(failover) ? nowMs : endOf(failover)} nameOf={nameOf} />
    </div>
  )
}

const endOf = ({ wholeMs, backMs, vms, decidedMs }: Failover): number =>
  wholeMs ?? Math.max(backMs ?? decidedMs, ...vms.flatMap(({ completeMs, resumedMs }) => completeMs ?? resumedMs ?? []))

function sentenceOf(failover: Failover, from: number, nameOf: (id: string) => string): string {
  const { hosts, suspectedMs, deadMs, decidedMs, epoch, vms, wholeMs } = failover
  const back = vms.filter(({ resumedMs }) => resumedMs !== undefined)
  const moved = back.filter(({ lost }) => lost).length
  const parts = [
    suspectedMs !== undefined &&
      hosts.length > 0 &&
      `${listOf(hosts.map(nameOf))} suspected at ${exactOf(suspectedMs)}`,
    deadMs !== undefined && suspectedMs !== undefined && `declared dead ${durationOf(deadMs - suspectedMs)} later`,
    `decided ${durationOf(decidedMs - (deadMs ?? from))} after that: back to epoch ${epoch}`,
    `${back.length} of ${countOf(vms.length, 'VM')} run again${moved > 0 ? `, ${moved} of them elsewhere` : ''}`,
    wholeMs !== undefined && `all pages there ${durationOf(wholeMs - from)} after the first suspicion`
  ]
  return `${parts.filter(part => part !== false).join('; ')}.`
}
