/** What every part of a peer is given when it is opened. */
import type { Report } from '../agents/group-agent.ts'
import type { EventFeed } from '../edge/events.ts'
import type { LogView } from '../edge/log-view.ts'
import type { HomeCredentials } from '../host/home-credentials.ts'
import type { Teardown } from '../host/teardown.ts'
import type { Log } from '../ports.ts'

/** What every part of a peer needs to begin, to tell, and to end. */
export interface Run {
  readonly log: Log
  readonly logging: LogView
  readonly teardown: Teardown
  readonly events: EventFeed
  readonly report: Report
  stop(error?: Error): Promise<void>
  readonly credentials: HomeCredentials | undefined
}
