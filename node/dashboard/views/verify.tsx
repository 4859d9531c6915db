/** Looking for every column that the kept epochs of a group lean on. */
import { useState } from 'preact/hooks'
import type { VerifyReport } from '../../edge/redundancy-view.ts'
import { ask, useWork } from '../live/work.ts'
import { countOf } from '../model/text.ts'
import { Dialog } from '../parts/dialog.tsx'
import { Mark } from '../parts/marks.tsx'
import { type ActionProps, Buttons, Outcome } from '../parts/asking.tsx'

export function VerifyDialog({ group, close }: ActionProps) {
  const [deep, setDeep] = useState(false)
  const path = `/v1/verify?name=${encodeURIComponent(group)}${deep ? '&deep=1' : ''}`
  const [work, run] = useWork<VerifyReport>((tell, signal) => ask(path, undefined, tell, signal))
  return (
    <Dialog title={`Verify what is stored of ${group}`} close={close}>
      <p>Every column that its kept epochs lean on is looked for on all members. Nothing is changed.</p>
      <label class="check">
        <input type="checkbox" checked={deep} onChange={event => setDeep(event.currentTarget.checked)} />
        Read all of it, too: takes as long as reading it from disk
      </label>
      <Outcome work={work}>{report => <Verified report={report} />}</Outcome>
      <Buttons work={work} run={run} close={close} word="Verify" />
    </Dialog>
  )
}

function Verified({ report }: { report: VerifyReport }) {
  const { images, missing, damaged, unreadable, silent, deep } = report
  const least = Math.min(...images.map(({ tolerates }) => tolerates))
  const whole = missing.length === 0 && damaged.length === 0 && unreadable.length === 0
  const how = deep ? 'read and whole' : 'there'
  return (
    <>
      <Mark tone={whole ? 'good' : 'bad'}>
        {whole
          ? `All columns of ${countOf(images.length, 'image')} are ${how}.`
          : `Of ${countOf(images.length, 'image')}: ${countOf(missing.length, 'column')} missing, ${damaged.length} damaged, ${unreadable.length} unreadable.`}
      </Mark>
      {images.length > 0 && (
        <p>{least < 0 ? 'Some cannot be read now.' : `Any ${countOf(least, 'member')} may vanish without loss.`}</p>
      )}
      <ul class="results">
        {unreadable.map(({ what, why }) => (
          <li key={what}>
            <Mark tone="bad">
              {what}: {why}
            </Mark>
          </li>
        ))}
        {silent.map(name => (
          <li key={name}>
            <Mark tone="warn">{name} did not answer</Mark>
          </li>
        ))}
      </ul>
    </>
  )
}
