/** Letting a group rest, and run again: each in a dialog that says first what it means. */
import { useState } from 'preact/hooks'
import type { GroupRecord } from '../../../protocols/group.ts'
import { send } from '../live/http.ts'
import { useWork } from '../live/work.ts'
import { type ActionProps, Buttons, Outcome, TypedName } from '../parts/asking.tsx'
import { Dialog } from '../parts/dialog.tsx'
import { Mark } from '../parts/marks.tsx'

const pathOf = (group: string, what: 'stop' | 'start'): string => `/v1/groups/${encodeURIComponent(group)}/${what}`

export function StopDialog({ group, close }: ActionProps) {
  const [now, setNow] = useState(false)
  const [typed, setTyped] = useState('')
  const [work, run] = useWork<GroupRecord>(async (tell, signal) => {
    tell(now ? 'All members are asked to agree…' : 'A last epoch is being taken…')
    return (await (await send('POST', pathOf(group, 'stop'), { body: { now }, signal })).json()) as GroupRecord
  })
  return (
    <Dialog title={`Let ${group} rest`} close={close}>
      <p>
        A last epoch of it is taken, and its VMs end. Nobody brings them back, also when hosts die, until you start the
        group; then they go on from that epoch.
      </p>
      <label class="check">
        <input type="checkbox" checked={now} onChange={event => setNow(event.currentTarget.checked)} />
        At once, without that epoch: what its VMs did since the one before is lost
      </label>
      {now && <TypedName group={group} typed={typed} type={setTyped} />}
      <Outcome work={work}>
        {({ committed }) => <Mark tone="good">It rests at epoch {committed?.epoch ?? 0}.</Mark>}
      </Outcome>
      <Buttons work={work} run={run} close={close} word="Let it rest" danger={now} ready={!now || typed === group} />
    </Dialog>
  )
}

export function StartDialog({ group, close }: ActionProps) {
  const [work, run] = useWork<GroupRecord>(async (tell, signal) => {
    tell('All members are asked to agree…')
    return (await (await send('POST', pathOf(group, 'start'), { body: {}, signal })).json()) as GroupRecord
  })
  return (
    <Dialog title={`Start ${group}`} close={close}>
      <p>All its VMs go on from the epoch at which it rests, on hosts that have room for them.</p>
      <Outcome work={work}>
        {({ generation, committed }) => (
          <Mark tone="good">{`Decided: generation ${generation} goes on from epoch ${committed?.epoch ?? 0}.`}</Mark>
        )}
      </Outcome>
      <Buttons work={work} run={run} close={close} word="Start it" />
    </Dialog>
  )
}
