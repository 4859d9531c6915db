import { describe, expect, test } from 'vitest'
import { newVms, olderMembers, requireKnown } from '../../node/planning/older-members.ts'
import { DrillOperations } from '../../node/operations/drills.ts'
import { createGroup } from '../../protocols/epoch/record.ts'
import { SPEAKS } from '../../protocols/host-facts.ts'
import type { GroupRecord, VmSpec } from '../../protocols/group.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'

const vm: VmSpec = { id: 'a', mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' }

/** Members oak, elm and ash of which `silent` tell what `said` has instead of what this version does; ash is a witness. */
function cluster(silent: readonly string[], alive = ['1', '2', '3'], said = {}) {
  const members = ['oak', 'elm', 'ash'].map((name, at) => ({
    id: `${at + 1}`,
    name,
    role: name === 'ash' ? 'witness' : 'storage',
    votes: true,
    leaving: false
  }))
  const keys = Object.fromEntries(members.map(({ id }) => [id, 'k']))
  return {
    membership: { record: () => ({ members, dataKeys: [{ sealed: keys }] }) as unknown as ClusterRecord },
    detector: { alive: () => alive },
    storagePeers: {
      about: (peers: readonly string[]) =>
        peers.map(peer => ({ peer, ...(silent.includes(peer) ? said : { speaks: SPEAKS }) }))
    }
  }
}

describe('while a living member has not said that it understands what this version does', () => {
  test('it counts as older; who is dead does not', () => {
    expect(olderMembers(cluster([]))).toEqual([])
    expect(olderMembers(cluster(['2', '3']))).toEqual(['elm', 'ash'])
    expect(olderMembers(cluster(['2', '3'], ['1', '3']))).toEqual(['ash'])
  })

  test('it counts as older though it has told its memory, or what a version before understood', () => {
    for (const said of [{ vmMemoryMiB: 1024 }, { vmMemoryMiB: 1024, speaks: SPEAKS - 1 }])
      expect(olderMembers(cluster(['2', '3'], undefined, said))).toEqual(['elm', 'ash'])
    expect(olderMembers(cluster(['2'], undefined, { speaks: SPEAKS + 1 }))).toEqual([])
  })

  test('new VMs have no generation id, which they have else unless they say otherwise', () => {
    const asked = [vm, { ...vm, generationId: false }, { ...vm, generationId: true }]
    expect(newVms(asked, []).map(({ generationId }) => generationId)).toEqual([true, false, true])
    for (const made of newVms(asked.slice(0, 2), ['elm'])) expect(made).toStrictEqual(vm)
  })

  test.each([
    ['standby', { standby: 1 }],
    ['apart', { apart: 'web' }],
    ['generationId', { generationId: true }],
    ['clock', { clock: 'wall' }],
    ['guestAgent', { guestAgent: {} }],
    ['objective', { objective: { backMs: 1_000 } }]
  ] as const)('VMs with %s are refused, with its name', (word, more) => {
    const vms = [vm, { ...vm, id: 'b', ...more }]
    const refused = { code: 'MEMBER_OLDER', message: expect.stringMatching(`Of elm .* VMs with ${word}\\.`) }
    expect(() => newVms(vms, ['elm'])).toThrow(expect.objectContaining(refused))
    expect(() => requireKnown(vms, ['elm'])).toThrow(expect.objectContaining(refused))
    expect(newVms(vms, [])[1]).toMatchObject(more)
    requireKnown(vms, [])
    requireKnown([vm], ['elm'])
  })

  test('VMs that boot from their disk, or a kernel alone, are refused', () => {
    const { kernel, append } = vm
    const more = { id: 'b', mac: '52:54:00:00:00:02', memoryMiB: 64 }
    const without = (other: VmSpec) => () => newVms([vm, other], ['elm'])
    expect(without({ ...more, kernel, append })).toThrow(/VMs without initrd\. /)
    expect(without(more)).toThrow(/VMs without kernel, initrd, append\. /)
    expect(newVms([vm, more], [])).toHaveLength(2)
  })

  test('drills are not put on a schedule, and may be taken off one', async () => {
    let record: GroupRecord | null = createGroup('g', [vm], { a: '1' }, 0)(null) ?? null
    const directory = {
      change: async (_: string, next: (current: GroupRecord | null) => GroupRecord | undefined) =>
        (record = next(record) ?? record)
    }
    const at = (silent: readonly string[]) =>
      new DrillOperations({ ...cluster(silent), directory, drills: undefined, checks: {} })
    const wish = { everyMs: 60_000, timeoutMs: 10_000 }
    await expect(at(['3']).schedule('g', wish)).rejects.toMatchObject({ code: 'MEMBER_OLDER' })
    expect(record).not.toHaveProperty('drills')
    expect(await at([]).schedule('g', wish)).toHaveProperty('drills')
    expect(await at(['3']).schedule('g', undefined)).not.toHaveProperty('drills')
  })
})
