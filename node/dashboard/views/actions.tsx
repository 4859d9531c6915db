/** What may be done with a group, each in a dialog that says first what it means. Offered as far as the token's role reaches. */
import { useState } from 'preact/hooks'
import type { EpochResult } from '../../edge/view.ts'
import type { DrillReport } from '../../ports.ts'
import { send } from '../live/http.ts'
import { mayDo, session } from '../live/session.ts'
import { useValue } from '../live/store.ts'
import { ask, useWork } from '../live/work.ts'
import { durationOf } from '../model/text.ts'
import { Dialog } from '../parts/dialog.tsx'
import { Mark } from '../parts/marks.tsx'
import { type ActionProps, Buttons, Outcome } from '../parts/asking.tsx'
import { StartDialog, StopDialog } from './rest.tsx'
import { RestoreDialog } from './restore.tsx'
import { VerifyDialog } from './verify.tsx'

const dialogs = {
  snapshot: SnapshotDialog,
  start: StartDialog,
  restore: RestoreDialog,
  drill: DrillDialog,
  verify: VerifyDialog,
  stop: StopDialog
}
type Action = keyof typeof dialogs

const titles: Readonly<Record<Action, string>> = {
  snapshot: 'Snapshot',
  start: 'Start…',
  restore: 'Restore…',
  drill: 'Drill…',
  verify: 'Verify…',
  stop: 'Stop…'
}

/** Of a group that rests, and of one that does not, what has no sense. */
const senseless: readonly [resting: readonly Action[], running: readonly Action[]] = [['snapshot', 'stop'], ['start']]

export function Actions({ group, resting }: { group: string; resting: boolean }) {
  const who = useValue(session)
  const [open, setOpen] = useState<Action | undefined>()
  if (!mayDo(who, 'operate')) return null
  const left = senseless[resting ? 0 : 1]
  const Open = open === undefined ? undefined : dialogs[open]
  return (
    <div class="actions" role="group" aria-label={`Actions on ${group}`}>
      {(Object.keys(titles) as Action[])
        .filter(action => !left.includes(action))
        .map(action => (
          <button key={action} type="button" onClick={() => setOpen(action)}>
            {titles[action]}
          </button>
        ))}
      {Open !== undefined && <Open group={group} resting={resting} close={() => setOpen(undefined)} />}
    </div>
  )
}

function SnapshotDialog({ group, close }: ActionProps) {
  const path = `/v1/groups/${encodeURIComponent(group)}/epochs`
  const [work, run] = useWork<EpochResult>(async (tell, signal) => {
    tell('The epoch is being taken…')
    return (await (await send('POST', path, { signal })).json()) as EpochResult
  })
  return (
    <Dialog title={`Take a snapshot of ${group} now`} close={close}>
      <p>All its VMs are cut together; each stands still for some milliseconds.</p>
      <Outcome work={work}>{result => <EpochOutcome result={result} />}</Outcome>
      <Buttons work={work} run={run} close={close} word="Take it" />
    </Dialog>
  )
}

function EpochOutcome({ result: { epoch, outcome, reason } }: { result: EpochResult }) {
  if (outcome === 'committed') return <Mark tone="good">Epoch {epoch} is committed.</Mark>
  return (
    <Mark tone="bad">
      Epoch {epoch} was aborted: {reason ?? 'nobody said why'}
    </Mark>
  )
}

function DrillDialog({ group, close }: ActionProps) {
  const path = `/v1/groups/${encodeURIComponent(group)}/drill`
  const [work, run] = useWork<DrillReport>((tell, signal) => ask(path, {}, tell, signal))
  return (
    <Dialog title={`Drill: would ${group} come back?`} close={close}>
      <p>
        Its newest epoch is restored beside it, cut off from every network, and thrown away. The group goes on as it is;
        the drill needs as much memory again. It ends when this dialog is closed.
      </p>
      <Outcome work={work}>{report => <DrillOutcome report={report} />}</Outcome>
      <Buttons work={work} run={run} close={close} word="Begin the drill" />
    </Dialog>
  )
}

const DrillOutcome = ({ report: { failed, epoch, peer, tookMs, vms } }: { report: DrillReport }) => (
  <>
    <Mark tone={failed === undefined ? 'good' : 'bad'}>
      {failed === undefined
        ? `Passed: epoch ${epoch} came back on ${peer} in ${durationOf(tookMs)}.`
        : `Failed after ${durationOf(tookMs)}: ${failed}`}
    </Mark>
    <ul class="results">
      {vms.map(({ vm, runsMs, wholeMs, failed: why }) => (
        <li key={vm}>
          <Mark tone={why !== undefined || runsMs === undefined ? 'bad' : 'good'}>
            {vm}: {why ?? (runsMs === undefined ? 'did not run' : `ran after ${durationOf(runsMs)}`)}
            {wholeMs !== undefined && `, whole after ${durationOf(wholeMs)}`}
          </Mark>
        </li>
      ))}
    </ul>
  </>
)
