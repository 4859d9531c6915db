/** What people look at rather than ask for: gathered from all peers, each in a file of its own. Part of `PeerView`. */
import type { ClusterEventsView } from './cluster-events-view.ts'
import type { DecisionsView } from './decisions-view.ts'
import type { GraphView } from './graph-view.ts'
import type { GridView } from './grid-view.ts'
import type { HistoryView } from './history-view.ts'
import type { OverviewView } from './overview-view.ts'

export interface ReadModels extends OverviewView, HistoryView, GridView, GraphView, DecisionsView {
  readonly clusterEvents: ClusterEventsView
}
