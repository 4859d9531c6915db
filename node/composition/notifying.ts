/** Joins what people are to be told of with what they are told by. */
import { memberById } from '../../protocols/membership/record.ts'
import { NoticeWatch } from '../agents/notice-watch.ts'
import { Notifications } from '../agents/notifications.ts'
import { createCourier } from '../couriers/courier.ts'
import { wallMs } from '../host/clock.ts'
import { RedundancyOperations } from '../operations/redundancy.ts'
import type { Body } from './body.ts'
import type { Home } from './home.ts'
import type { Run } from './run.ts'
import type { Voice } from './voice.ts'

/** A peer without targets tells nobody, but lets others know what it alone sees. Begins with `start`; ended with the peer. */
export function openNotifying(home: Home, voice: Voice, { repairing }: Body, run: Run) {
  const { config, log, clock, self, cluster } = home
  const { metrics, bus, transport, detector, membership, directory, ids, keepers } = voice
  const nameOf = (peer: string): string => memberById(membership.record(), peer)?.name ?? peer
  const shared = { self, directory, detector, members: ids, nameOf, clock, wallMs }
  const notifications = new Notifications({
    ...shared,
    cluster: cluster.name,
    targets: config.notifications,
    courier: createCourier(config.notifications),
    bus,
    transport,
    log,
    report: run.report
  })
  metrics.told = notifications.counts
  const redundancy = new RedundancyOperations({ storing: repairing, membership, clock })
  const watch = new NoticeWatch({
    ...shared,
    keepers,
    voters: () => membership.record().voters.ids,
    exposed: () => (repairing?.redundancy.last === undefined ? undefined : redundancy.status()?.exposed),
    checkEveryMs: config.repair.checkEveryMs,
    tell: input => {
      notifications.feed(input)
      const { kind, group } = input.notice
      if (group !== undefined && (kind === 'failover' || kind === 'rollback')) metrics.onRestart(group, kind)
    }
  })
  const unsubscribe = run.events.subscribe(({ kind, ...fields }) => watch.onReport(kind, fields))
  membership.onChange(() => notifications.look())
  run.teardown.add(() => {
    unsubscribe()
    watch.stop()
    notifications.stop()
  })
  return {
    notifications,
    start: (): void => {
      notifications.look()
      watch.start()
    }
  }
}
