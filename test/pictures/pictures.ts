/** All pictures that are drawn, and where they are shown. Pure. */
import { cutPicture } from './cut.ts'
import { failoverPicture } from './failover.ts'
import { gridPicture } from './grid.ts'
import { svg } from './svg.ts'

/** `readme`: the root one, whose failover is drawn. `file`: from the root. */
export function pictures(readme: string): { readonly file: string; readonly drawn: string }[] {
  return [
    { file: 'protocols/epoch/cut.svg', drawn: svg(cutPicture()) },
    { file: 'node/erasure/grid.svg', drawn: svg(gridPicture()) },
    { file: 'node/agents/failover.svg', drawn: svg(failoverPicture(readme)) }
  ]
}
