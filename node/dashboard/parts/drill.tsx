/** What became of a group's last drill. */
import type { OverviewGroup } from '../../edge/overview-view.ts'
import { durationOf } from '../model/text.ts'
import { Ago, Mark } from './marks.tsx'

export function drillOf({ drills }: OverviewGroup, aheadMs: number) {
  const last = drills?.last
  if (last === undefined) return <span class="faint">never</span>
  return (
    <Mark tone={last.failed === undefined ? 'good' : 'bad'}>
      {last.failed === undefined ? `passed in ${durationOf(last.tookMs)}` : 'failed'},{' '}
      <Ago atMs={last.atMs} aheadMs={aheadMs} />
    </Mark>
  )
}
