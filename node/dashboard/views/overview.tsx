/** The first page: how it is in one sentence, where everything runs, what just happened. */
import type { Overview, OverviewMember, OverviewVm } from '../../edge/overview-view.ts'
import { aheadOf, useOverview } from '../live/cluster.ts'
import { hrefOf } from '../live/route.ts'
import { bytesOf, memoryOf } from '../model/text.ts'
import { isRoutine } from '../model/kept.ts'
import { type Verdict, verdictOf } from '../model/verdict.ts'
import { Mark, Meter, Sign } from '../parts/marks.tsx'
import { Loaded, Panel } from '../parts/panel.tsx'
import { EventTable, useHappenings } from './events.tsx'
import { FailoverPanels } from './failover.tsx'
import { GroupPanel } from './groups.tsx'
import { livenessTone } from './members.tsx'
import { stateTone } from './vms.tsx'

/** As many as one looks over at a glance; the others are a click away. */
const RECENT_EVENTS = 12

export function OverviewPage() {
  const read = useOverview()
  return (
    <Loaded read={read}>
      {overview => (
        <>
          <VerdictBox verdict={verdictOf(overview)} />
          <FailoverPanels />
          <Hosts overview={overview} />
          <GroupPanel overview={overview} aheadMs={aheadOf(read)} />
          <Recent />
        </>
      )}
    </Loaded>
  )
}

function VerdictBox({ verdict: { tone, text, reasons } }: { verdict: Verdict }) {
  const more = reasons.filter(reason => reason.text !== text)
  return (
    <section class={`verdict ${tone}`} aria-live="polite">
      <h1>
        <Sign tone={tone} />
        {text}
      </h1>
      {more.length > 0 && (
        <ul>
          {more.map(reason => (
            <li key={reason.text}>
              <a href={hrefOf(...reason.at)}>
                <Mark tone={reason.tone}>{reason.text}</Mark>
              </a>
            </li>
          ))}
        </ul>
      )}
    </section>
  )
}

/** Each member with the VMs that are on it: what one sees at a glance is whether all is where it belongs. */
function Hosts({ overview: { members, vms } }: { overview: Overview }) {
  const placed = Map.groupBy(vms, ({ owner }) => owner)
  const stored = members.reduce((sum, { report }) => sum + (report?.store.bytes ?? 0), 0)
  const homeless = vms.filter(({ owner }) => !members.some(({ id }) => id === owner))
  return (
    <Panel title="Where everything runs" aside={<span class="faint">{bytesOf(stored)} stored</span>}>
      <ul class="hosts">
        {members.map(member => (
          <Host key={member.id} member={member} vms={placed.get(member.id) ?? []} />
        ))}
        {homeless.length > 0 && (
          <li class="host dead">
            <header>
              <strong>nowhere</strong>
            </header>
            <VmChips vms={homeless} />
          </li>
        )}
      </ul>
    </Panel>
  )
}

function Host({ member, vms }: { member: OverviewMember; vms: readonly OverviewVm[] }) {
  const { name, liveness, role, vmMemoryMiB, usedMemoryMiB, silent } = member
  const memory = vmMemoryMiB === undefined ? '' : `${memoryOf(usedMemoryMiB)} of ${memoryOf(vmMemoryMiB)}`
  return (
    <li class={`host ${liveness}`}>
      <header>
        <strong>{name}</strong>
        <Mark tone={livenessTone[liveness]}>{silent === undefined || liveness !== 'alive' ? liveness : 'silent'}</Mark>
      </header>
      {role === 'witness' ? (
        <p class="faint">witness: votes, runs and stores nothing</p>
      ) : (
        <>
          <VmChips vms={vms} />
          {memory !== '' && vmMemoryMiB !== undefined && (
            <p class="metered">
              <Meter part={usedMemoryMiB} whole={vmMemoryMiB} label={`${memory} of memory for VMs`} />
              <span class="faint">{memory}</span>
            </p>
          )}
        </>
      )}
    </li>
  )
}

/** With more the names do not fit. */
const NAMED_CHIPS = 12

const VmChips = ({ vms }: { vms: readonly OverviewVm[] }) =>
  vms.length === 0 ? (
    <p class="faint">no VMs</p>
  ) : (
    <ul class={vms.length > NAMED_CHIPS ? 'chips many' : 'chips'}>
      {vms.map(({ group, vm, state }) => (
        <li key={`${group}/${vm}`}>
          <a class={`chip ${state}`} href={hrefOf('vms', group, vm)} title={`${group}/${vm}: ${state}`}>
            <Sign tone={stateTone[state]} />
            <span>{vm}</span>
          </a>
        </li>
      ))}
    </ul>
  )

function Recent() {
  const all = useHappenings().filter(happening => !isRoutine(happening) || happening.kind === 'epoch.committed')
  return (
    <Panel title="Just now" aside={<a href={hrefOf('events')}>All events</a>}>
      <EventTable rows={all.slice(0, RECENT_EVENTS)} shown={RECENT_EVENTS} />
    </Panel>
  )
}
