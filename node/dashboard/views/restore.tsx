/** Taking a group back to an epoch: what is lost by it is said, and the group's name must be typed. */
import { useState } from 'preact/hooks'
import type { EpochStatus, GroupEpochs } from '../../edge/epoch-view.ts'
import type { GroupRecord } from '../../../protocols/group.ts'
import { now } from '../live/clock.ts'
import { send } from '../live/http.ts'
import { useRead } from '../live/resource.ts'
import { useValue } from '../live/store.ts'
import { useWork } from '../live/work.ts'
import { momentOf, sinceOf } from '../model/text.ts'
import { Dialog } from '../parts/dialog.tsx'
import { Mark } from '../parts/marks.tsx'
import { Loaded } from '../parts/panel.tsx'
import { type ActionProps, Buttons, Outcome, TypedName } from '../parts/asking.tsx'

export function RestoreDialog({ group, resting, close }: ActionProps) {
  const read = useRead<GroupEpochs>(`/v1/groups/${encodeURIComponent(group)}/epochs`, 0)
  return (
    <Dialog title={`Take ${group} back to an epoch`} close={close}>
      <Loaded read={read}>
        {({ epochs }) =>
          epochs.length === 0 ? (
            <p>No epoch of it is kept, so there is nothing to go back to.</p>
          ) : (
            <Choice group={group} resting={resting} epochs={epochs.toReversed()} close={close} />
          )
        }
      </Loaded>
    </Dialog>
  )
}

function Choice({ group, resting, epochs, close }: ActionProps & { epochs: readonly EpochStatus[] }) {
  const nowMs = useValue(now)
  const [epoch, setEpoch] = useState(epochs.find(({ committed }) => committed)?.epoch ?? epochs[0]?.epoch)
  // What the page hears meanwhile, as that it runs again, changes no word of what was asked.
  const [rested] = useState(resting)
  const [typed, setTyped] = useState('')
  const [force, setForce] = useState(false)
  const [work, run] = useWork<GroupRecord>(async (tell, signal) => {
    tell('All members are asked to agree…')
    const body = { epoch, ...(force && { force }) }
    return (await (
      await send('POST', `/v1/groups/${encodeURIComponent(group)}/restore`, { body, signal })
    ).json()) as GroupRecord
  })
  const chosen = epochs.find(each => each.epoch === epoch)
  const ageMs = chosen?.wallMs === undefined ? undefined : nowMs - chosen.wallMs
  return (
    <>
      <label>
        Epoch
        <select value={String(epoch)} onChange={event => setEpoch(Number(event.currentTarget.value))}>
          {epochs.map(each => (
            <option key={each.epoch} value={String(each.epoch)}>
              {optionText(each)}
            </option>
          ))}
        </select>
      </label>
      <p>
        <Mark tone="warn">{rested ? wakingText(group, chosen) : lossText(group, ageMs)}</Mark>
      </p>
      {work.state === 'failed' && work.code === 'OUTPUT_SENT' && (
        <label class="check">
          <input type="checkbox" checked={force} onChange={event => setForce(event.currentTarget.checked)} />
          Go back although others have seen what came later
        </label>
      )}
      <TypedName group={group} typed={typed} type={setTyped} />
      <Outcome work={work}>
        {({ generation }) => (
          <Mark tone="good">
            Decided: generation {generation} goes back to epoch {epoch}.
          </Mark>
        )}
      </Outcome>
      <Buttons work={work} run={run} close={close} word="Take it back" danger ready={typed === group} />
    </>
  )
}

const lossText = (group: string, ageMs: number | undefined): string =>
  `Every VM of ${group} starts again from it. What they did ${sinceOf(ageMs)} is gone.`

/** Of a group that rests: its VMs have done nothing since its newest epoch. */
const wakingText = (group: string, chosen: EpochStatus | undefined): string =>
  chosen?.committed === true
    ? `${group} rests at this epoch, and every VM of it starts from it. Nothing is lost.`
    : `${group} rests, and every VM of it starts from this epoch. What they did between it and the newest is gone.`

function optionText({ epoch, wallMs, committed, holds }: EpochStatus): string {
  const words = [String(epoch), ...(wallMs === undefined ? [] : [momentOf(wallMs)])]
  if (committed) words.push('the newest')
  return [...words, ...holds].join(' · ')
}
