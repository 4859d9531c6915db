/** All that is fuzzed. A new parser of foreign bytes gets an entry in one of these lists. */
import { edgeTargets } from './edge-targets.ts'
import { homeTargets } from './home-targets.ts'
import { extentTargets } from './extent-targets.ts'
import { imageTargets } from './image-targets.ts'
import { indexTargets } from './index-targets.ts'
import { diskTargets } from './disk-targets.ts'
import { messageTargets } from './message-targets.ts'
import { peerTargets } from './peer-targets.ts'
import { storeTargets } from './store-targets.ts'
import { streamTargets } from './stream-targets.ts'
import type { Target } from './target.ts'
import { tcpTargets } from './tcp-targets.ts'
import { textTargets } from './text-targets.ts'

export const targets: readonly Target[] = [
  ...streamTargets,
  ...imageTargets,
  ...indexTargets,
  ...extentTargets,
  ...diskTargets,
  ...storeTargets,
  ...messageTargets,
  ...peerTargets,
  ...textTargets,
  ...homeTargets,
  ...edgeTargets,
  ...tcpTargets
]
