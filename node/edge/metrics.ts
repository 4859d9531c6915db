/** What a peer knows as metrics, in Prometheus' text format: `GET /metrics`. Of VMs, those that run here: each is told of once. */
import { Gauge, Registry } from 'prom-client'
import type { PeerStatus } from './view.ts'

export const METRICS_TYPE = Registry.PROMETHEUS_CONTENT_TYPE

/** Times in seconds, as is the custom there. What is not known is absent. */
export async function metricsText(status: PeerStatus): Promise<string> {
  const registry = new Registry()
  const gauge = <L extends string>(name: string, help: string, labelNames: readonly L[] = []): Gauge<L> =>
    new Gauge<L>({ name: `diapause_${name}`, help, labelNames, registers: [registry] })
  const vm = ['group', 'vm'] as const
  const back = gauge('vm_back_seconds', 'From the death of its host to the VM running, by what was measured before', vm)
  const loss = gauge('vm_loss_seconds', 'By how much the VM would go back if its host died now', vm)
  const most = gauge('vm_objective_seconds', 'What its objective allows', [...vm, 'objective'])
  const missed = gauge('vm_objective_missed', '1: it would miss its objective if its host died now', [
    ...vm,
    'objective'
  ])
  for (const { record, outlooks = {} } of status.groups) {
    for (const [id, { backMs, lossMs, missed: misses }] of Object.entries(outlooks)) {
      const labels = { group: record.id, vm: id }
      if (backMs !== null) back.set(labels, backMs / 1_000)
      loss.set(labels, lossMs / 1_000)
      const objective = record.vms.find(spec => spec.id === id)?.objective ?? {}
      for (const name of ['backMs', 'lossMs'] as const) {
        const ms = objective[name]
        if (ms === undefined) continue
        const one = { ...labels, objective: name === 'backMs' ? 'back' : 'loss' }
        most.set(one, ms / 1_000)
        missed.set(one, misses.includes(name) ? 1 : 0)
      }
    }
  }
  const epoch = gauge('group_epoch', 'The committed epoch', ['group'])
  for (const { record } of status.groups) epoch.set({ group: record.id }, record.committed?.epoch ?? 0)
  const drill = gauge('drill_failed', '1: the last drill of the group failed', ['group'])
  const drilled = gauge('drill_ended_seconds', 'When the last drill of the group ended, since 1970', ['group'])
  for (const { record } of status.groups) {
    const last = record.drills?.last
    if (last === undefined) continue
    drill.set({ group: record.id }, last.failed === undefined ? 0 : 1)
    drilled.set({ group: record.id }, last.atMs / 1_000)
  }
  const members = gauge('members', 'Members of the cluster as this peer sees them', ['liveness'])
  for (const liveness of ['alive', 'suspect', 'dead'] as const) {
    members.set({ liveness }, status.members.filter(member => member.liveness === liveness).length)
  }
  gauge('store_bytes', 'Bytes of the shard store').set(status.store.bytes)
  if (status.redundancy !== null) {
    gauge('images_exposed', 'Kept images that bear fewer losses than they should').set(status.redundancy.exposed.length)
  }
  return await registry.metrics()
}
