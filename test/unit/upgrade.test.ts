import { describe, expect, it } from 'vitest'
import { standingOf, upgradeReport } from '../../node/edge/upgrade.ts'
import { upgradeText } from '../../node/edge/cli-upgrade.ts'
import type { Overview, OverviewMember } from '../../node/edge/overview-view.ts'

const whole = { exposed: 0, tolerates: null, repairedColumns: 0, repairedBytes: 0, due: 0, damaged: 0 }

function member(name: string, version: string | null, more: Partial<OverviewMember> = {}): OverviewMember {
  const said = { uptimeMs: 1, aheadMs: 0, hypervisor: 'QEMU', capture: null, standbys: [], redundancy: whole }
  const store = { streams: 0, manifests: 0, bytes: 0 }
  const report = version === null ? null : { ...said, version, store }
  const about = { id: name, name, address: '', role: 'storage', votes: true, self: false, leaving: false } as const
  return { ...about, liveness: 'alive', connected: true, usedMemoryMiB: 0, report, ...more }
}

const vm = (owner: string, name: string) => ({ group: 'shop', vm: name, owner }) as Overview['vms'][number]

function overview(members: OverviewMember[], vms: Overview['vms'] = [], epoch = 7): Overview {
  const shop = { id: 'shop', generation: 1, epoch, open: null, kept: 1, outputCommit: false, openFlow: false }
  const code = {} as Overview['code'] // not looked at
  return { cluster: 'forest', by: 'oak', nowMs: 0, code, members, vms, groups: [shop] }
}

describe('a check before the next peer is upgraded', () => {
  it('names the older member with the fewest VMs, and who answers last', () => {
    const members = [member('oak', '0.1.0', { self: true }), member('elm', '0.1.0'), member('ash', '0.1.0')]
    const report = upgradeReport('0.2.0', overview(members, [vm('elm', 'web')]))
    expect(report).toMatchObject({ waits: [], next: { name: 'ash', vms: [] } })
    const later = [members[0], members[1], member('ash', '0.2.0')].filter(each => each !== undefined)
    const next = upgradeReport('0.2.0', overview(later, [vm('elm', 'web')]))
    expect(next.next).toEqual({ name: 'elm', vms: ['shop/web'] })
    const resting = { ...vm('elm', 'web'), state: 'resting' as const }
    expect(upgradeReport('0.2.0', overview(later, [resting])).next).toEqual({ name: 'elm', vms: [] })
    expect(upgradeText(next)).toContain('next: stop elm (shop/web go on elsewhere from their last snapshot')
  })

  it('says that all is done', () => {
    const report = upgradeReport('0.2.0', overview([member('oak', '0.2.0'), member('elm', '0.2.1')]))
    expect(report).toMatchObject({ waits: [], next: null })
    expect(upgradeText(report)).toMatch(/newer than this program: elm.*\nno member is older/)
  })

  it('lets nobody stop while a member is dead, is silent, or what is stored bears too few losses', () => {
    const exposed = member('fir', '0.1.0')
    const report = exposed.report && { ...exposed.report, redundancy: { ...whole, exposed: 2, due: 5 } }
    const { waits } = upgradeReport(
      '0.2.0',
      overview([
        member('oak', '0.1.0', { self: true, connected: false }),
        member('elm', null, { liveness: 'dead', connected: false }),
        member('larch', '0.1.0', { connected: false }),
        member('ash', null, { silent: 'it took longer than a second' }),
        { ...exposed, report },
        member('yew', '0.1.0', { leaving: true, liveness: 'dead' })
      ])
    )
    expect(waits).toEqual([
      'elm is dead: start it, or remove it',
      expect.stringMatching(/^larch is alive, but the peer that answers has no connection to it/),
      'ash does not say what it is (it took longer than a second)',
      expect.stringMatching(/^fir says that 2 snapshots bear fewer losses than they should, 5 columns are due: wait/),
      expect.stringMatching(/^without larch 3 of 6 voters/)
    ])
  })

  it('lets nobody stop whose VMs would have no host', () => {
    const members = [member('oak', '0.2.0', { self: true }), member('elm', '0.1.0'), member('ash', '0.2.0')]
    const outlook = { never: true } as NonNullable<Overview['vms'][number]['outlook']>
    const { waits } = upgradeReport('0.2.0', overview(members, [{ ...vm('elm', 'web'), outlook }, vm('elm', 'db')]))
    expect(waits).toEqual([expect.stringMatching(/^no other host has room for shop\/web, so they would stand still/)])
    expect(upgradeReport('0.2.0', overview(members, [{ ...vm('ash', 'web'), outlook }])).waits).toEqual([])
    const why = { kind: 'columns', vm: 'web', left: 2, columns: 5, needs: 3 } as const
    const unread = upgradeReport('0.2.0', overview(members, [{ ...vm('elm', 'web'), outlook: { ...outlook, why } }]))
    expect(unread.waits).toEqual([expect.stringMatching(/^too few columns of images of shop\/web or their groups/)])
  })

  it('lets nobody stop without whom the voters have no majority', () => {
    const pair = [member('oak', '0.2.0', { self: true }), member('elm', '0.1.0')]
    const { waits } = upgradeReport('0.2.0', overview(pair))
    expect(waits).toEqual([expect.stringMatching(/^without elm 1 of 2 voters are there and 2 are needed/)])
    const { waits: more } = upgradeReport('0.2.0', overview([...pair, member('ash', '0.2.0')]))
    expect(more).toEqual([])
    const { waits: without } = upgradeReport(
      '0.2.0',
      overview([...pair.slice(0, 1), member('elm', '0.1.0', { votes: false })])
    )
    expect(without).toEqual([])
  })

  it('wants a snapshot of each group first', () => {
    const three = [member('oak', '0.1.0'), member('elm', '0.1.0'), member('ash', '0.1.0')]
    const { waits } = upgradeReport('0.2.0', overview(three, [vm('oak', 'web')], 0))
    expect(waits).toEqual(['group shop has no snapshot yet: take one (diapause snapshot shop)'])
  })

  it('says which groups are to be started before an older version comes back, and keeps nobody waiting for that', () => {
    const all = overview([member('oak', '0.1.0'), member('elm', '0.1.0'), member('ash', '0.1.0')])
    const report = upgradeReport('0.1.0', { ...all, groups: all.groups.map(each => ({ ...each, resting: true })) })
    expect(report).toMatchObject({ waits: [], resting: ['shop'] })
    expect(upgradeText(report)).toContain('group shop rests: start it (diapause vm start shop) before you go back')
    expect(upgradeText(upgradeReport('0.1.0', all))).not.toContain('rests')
  })

  it('compares versions by their numbers', () => {
    const found = ['0.9.0', '0.10.0', '0.10.0-rc.1', '0.10.1', '1.0.0'].map(each => standingOf(each, '0.10.0'))
    expect(found).toEqual(['older', 'same', 'same', 'newer', 'newer'])
  })
})
