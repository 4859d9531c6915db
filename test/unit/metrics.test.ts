import { describe, expect, it } from 'vitest'
import { statusText } from '../../node/edge/format.ts'
import { Metrics } from '../../node/edge/metrics.ts'
import type { GroupStatus, PeerStatus } from '../../node/edge/view.ts'
import type { VmOutlook } from '../../protocols/overview/outlook.ts'
import { aStatus } from './status-support.ts'

const parts = { detectMs: 400, decideMs: 500, runsMs: 1_600 }
const outlook = (over: Partial<VmOutlook>): VmOutlook => ({
  backMs: 2_500,
  parts,
  bySettings: [],
  lossMs: 7_000,
  missed: [],
  ...over
})

const metricsText = (status: PeerStatus): Promise<string> => new Metrics(() => true).text(status)

function statusOf(outlooks: GroupStatus['outlooks']): PeerStatus {
  const vm = { mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' }
  const record = {
    id: 'bank',
    version: 1,
    generation: 1,
    vms: [
      { ...vm, id: 'a', objective: { backMs: 2_000, lossMs: 10_000 } },
      { ...vm, id: 'b' }
    ],
    owners: {},
    lastEpoch: 3,
    open: null,
    committed: { epoch: 3, generation: 1, previousEpoch: 2, images: {} },
    removed: false
  }
  return { ...aStatus, groups: [{ record, running: [], captures: {}, leaseRemainingMs: 0, outlooks }] }
}

describe('what would become of a VM if its host died', () => {
  const status = statusOf({ a: outlook({ missed: ['backMs'] }), b: outlook({ backMs: null, lossMs: 1_500 }) })

  it('is told to Prometheus in seconds, with what its objective allows; what is not known is absent', async () => {
    const lines = (await metricsText(status))
      .split('\n')
      .filter(line => /^diapause_vm_(back|loss|objective)/.test(line))
    expect(lines).toEqual([
      'diapause_vm_back_seconds{group="bank",vm="a"} 2.5',
      'diapause_vm_loss_seconds{group="bank",vm="a"} 7',
      'diapause_vm_loss_seconds{group="bank",vm="b"} 1.5',
      'diapause_vm_objective_seconds{group="bank",vm="a",objective="back"} 2',
      'diapause_vm_objective_seconds{group="bank",vm="a",objective="loss"} 10',
      'diapause_vm_objective_missed{group="bank",vm="a",objective="back"} 1',
      'diapause_vm_objective_missed{group="bank",vm="a",objective="loss"} 0'
    ])
    expect(await metricsText(status)).toContain('diapause_group_epoch{group="bank"} 3')
  })

  it('is told to people, loudly where it is over its objective', () => {
    const text = statusText(status)
    expect(text).toContain('if this host died now: a back in about 2.5 s (OVER ITS OBJECTIVE of 2.0 s), losing 7.0 s\n')
    expect(text).toContain('if this host died now: b back after a time not measured yet, losing 1.5 s\n')
    const homeless = statusText(statusOf({ a: outlook({ backMs: null, never: true, missed: ['backMs'] }) }))
    expect(homeless).toContain('a NOT BACK: no host has room for its group (OVER ITS OBJECTIVE of 2.0 s), losing')
  })

  it('is that it boots anew where no epoch is committed', () => {
    const groups = status.groups.map(group => ({ ...group, record: { ...group.record, committed: null } }))
    const text = statusText({ ...status, groups })
    expect(text).toContain('a boots anew in about 2.5 s (OVER ITS OBJECTIVE of 2.0 s), all is lost\n')
    expect(text).toContain('b boots anew after a time not measured yet, all is lost\n')
  })

  it('is not told by a peer of before it was', async () => {
    const before = statusOf(undefined)
    expect(statusText(before)).not.toContain('if this host died')
    expect(await metricsText(before)).not.toContain('diapause_vm_loss_seconds{')
  })
})
