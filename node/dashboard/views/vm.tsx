/** One VM: where it runs, what losing its host would mean against its objectives, what it costs, and why it is where it is. */
import type { ComponentChildren } from 'preact'
import type { DecisionLine, DecisionList } from '../../edge/decisions-view.ts'
import type { Overview, OverviewVm } from '../../edge/overview-view.ts'
import { namesOf, useOverview } from '../live/cluster.ts'
import { useHistory } from '../live/history.ts'
import { get } from '../live/http.ts'
import { useRead } from '../live/resource.ts'
import { hrefOf } from '../live/route.ts'
import { fine } from '../model/epochs.ts'
import { bytesOf, countOf, durationOf, exactOf, listOf, memoryOf } from '../model/text.ts'
import { Mark } from '../parts/marks.tsx'
import { Loaded, Panel } from '../parts/panel.tsx'
import { BackCell, LossCell, stateTone } from './vms.tsx'

export function VmView({ group, vm }: { group: string; vm: string }) {
  const read = useOverview()
  return (
    <>
      <h1>
        <a href={hrefOf('groups', group)}>{group}</a> / {vm}
      </h1>
      <Loaded read={read}>
        {overview => {
          const found = overview.vms.find(each => each.group === group && each.vm === vm)
          return found === undefined ? (
            <p class="empty">There is no VM of this name.</p>
          ) : (
            <Vm vm={found} overview={overview} />
          )
        }}
      </Loaded>
      <Log group={group} vm={vm} />
    </>
  )
}

function Vm({ vm, overview }: { vm: OverviewVm; overview: Overview }) {
  const { group, owner, state, memoryMiB, cpus, capture, leaseRemainingMs } = vm
  const nameOf = namesOf(overview)
  return (
    <div class="pair">
      <Panel title="Now">
        <dl class="facts">
          <Fact name="State">
            <Mark tone={stateTone[state]}>{state}</Mark>
          </Fact>
          <Fact name="Runs on">{nameOf(owner)}</Fact>
          <Fact name="Lease of its host">
            {leaseRemainingMs > 0 ? `for ${durationOf(leaseRemainingMs)} more` : 'none told'}
          </Fact>
          <Fact name="Memory">{memoryOf(memoryMiB)}</Fact>
          <Fact name="CPUs">{cpus}</Fact>
          <Fact name="Cut by">{capture ?? 'not cut yet'}</Fact>
          <Cost group={group} vm={vm.vm} />
        </dl>
      </Panel>
      <Panel title="If its host died now">
        <Outlook vm={vm} />
      </Panel>
    </div>
  )
}

const Fact = ({ name, children }: { name: string; children: ComponentChildren }) => (
  <>
    <dt>{name}</dt>
    <dd>{children}</dd>
  </>
)

/** Of the last epochs, as many as a chart of an hour or two has. */
const LAST_EPOCHS = 100

function Cost({ group, vm }: { group: string; vm: string }) {
  const { data } = useHistory(group)
  const mine = (data?.rows ?? []).slice(-LAST_EPOCHS).flatMap(({ vms }) => vms.find(each => each.vm === vm) ?? [])
  const pauses = mine.flatMap(({ pauseMs }) => pauseMs ?? []).toSorted((a, b) => a - b)
  const stored = mine.flatMap(({ storedBytes }) => storedBytes ?? [])
  const [half, worst] = [pauses[Math.floor(pauses.length / 2)], pauses.at(-1)]
  if (half === undefined || worst === undefined) return null
  const mean = stored.reduce((sum, bytes) => sum + bytes, 0) / Math.max(1, stored.length)
  return (
    <>
      <Fact name="Stands still">{`${fine(half)} an epoch, ${fine(worst)} at worst of the last ${pauses.length}`}</Fact>
      <Fact name="Stores">{`${bytesOf(mean)} an epoch, with parity`}</Fact>
    </>
  )
}

function Outlook({ vm }: { vm: OverviewVm }) {
  const { outlook, objective } = vm
  if (outlook === undefined) return <p class="empty">Its host has not told yet.</p>
  const { detectMs, decideMs, runsMs } = outlook.parts
  const part = (ms: number | null): string => (ms === null ? 'not measured' : durationOf(ms))
  return (
    <dl class="facts">
      <Fact name="Back in">
        <BackCell vm={vm} />
      </Fact>
      <Fact name="Would lose">
        <LossCell vm={vm} />
      </Fact>
      <Fact name="Objectives">
        {objective === undefined
          ? 'none set'
          : [
              ...(objective.backMs === undefined ? [] : [`back within ${durationOf(objective.backMs)}`]),
              ...(objective.lossMs === undefined ? [] : [`at most ${durationOf(objective.lossMs)} lost`])
            ].join(', ')}
      </Fact>
      <Fact name="Made of">{`noticed ${part(detectMs)}, decided ${part(decideMs)}, runs again ${part(runsMs)}`}</Fact>
      {outlook.bySettings.length > 0 && (
        <Fact name="Not measured">{`${listOf(outlook.bySettings)}: by the settings`}</Fact>
      )}
    </dl>
  )
}

const EVERY_MS = 5_000

/** What the decision log has of it and its group. */
function Log({ group, vm }: { group: string; vm: string }) {
  const read = useRead<DecisionList>('/v1/decisions?limit=500', EVERY_MS, () => get('/v1/decisions?limit=500'))
  return (
    <Panel title="Why it is where it is" aside={<code>{`diapause why ${vm}`}</code>}>
      <Loaded read={read}>
        {list => {
          const mine = list.decisions.filter(line => line.group === group && (line.vm === undefined || line.vm === vm))
          return <Lines lines={mine.slice(-40).reverse()} list={list} />
        }}
      </Loaded>
    </Panel>
  )
}

function Lines({ lines, list }: { lines: readonly DecisionLine[]; list: DecisionList }) {
  if (lines.length === 0) return <p class="empty">Nothing was noted about it lately.</p>
  return (
    <div class="log" role="region" aria-label={countOf(lines.length, 'decision')} tabIndex={0}>
      <ol>
        {lines.map(({ by, seq, atMs, text }) => (
          <li key={`${by} ${seq}`}>
            <time class="mono">{exactOf(atMs)}</time>
            <span>
              <strong>{list.names[by] ?? `…${by.slice(-6)}`}</strong> {text}
            </span>
          </li>
        ))}
      </ol>
    </div>
  )
}
