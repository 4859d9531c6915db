import fc from 'fast-check'
import { expect, test } from 'vitest'
import { planRestore, without } from '../../node/planning/placement.ts'
import { plannedStandbys, standbysAt } from '../../node/planning/standby.ts'
import { aGroup, aVm } from './group-records.ts'

const HOSTS = ['p1', 'p2', 'p3', 'p4', 'p5']

const vm = (id: string, memoryMiB: number, standby?: number) => aVm(id, { memoryMiB, standby })

const group = fc
  .array(
    fc.record({ memoryMiB: fc.constantFrom(64, 128, 256), owner: fc.constantFrom(...HOSTS), asks: fc.boolean() }),
    {
      minLength: 1,
      maxLength: 6
    }
  )
  .map(vms =>
    aGroup({
      vms: vms.map(({ memoryMiB, asks }, i) => vm(`v${i}`, memoryMiB, asks ? 1 : undefined)),
      owners: Object.fromEntries(vms.map(({ owner }, i) => [`v${i}`, owner]))
    })
  )

test('whoever loses a host gives its VMs to those that keep copies of them, although others have more columns by then', () => {
  const columns = fc.dictionary(fc.constantFrom(...HOSTS), fc.nat(3))
  const property = fc.property(group, columns, (record, held) => {
    const lost = record.owners['v0'] ?? ''
    const facts = { hosts: HOSTS, groups: [record] }
    const before = plannedStandbys(record, facts)
    const later = without(facts, lost)
    expect(plannedStandbys(record, later)).toEqual(before)
    const some = Object.fromEntries(record.vms.map(({ id }) => [id, held]))
    const plan = planRestore(record, { ...later, standbys: plannedStandbys(record, later), columns: some })
    for (const { id, standby } of record.vms) {
      if (standby !== 1) expect(before[id]).toBeUndefined()
      else if (record.owners[id] === lost) expect([plan?.owners[id]]).toEqual(before[id])
      expect(before[id] ?? []).not.toContain(record.owners[id])
    }
  })
  fc.assert(property, { numRuns: 300 })
})

test('a host keeps copies of its own VMs, for a rollback in place, and of those that it would run', () => {
  const record = aGroup({
    vms: [vm('a', 64, 1), vm('b', 64, 1), vm('c', 64)],
    owners: { a: 'p1', b: 'p2', c: 'p3' }
  })
  const facts = { hosts: ['p1', 'p2', 'p3'], groups: [record] }
  const planned = plannedStandbys(record, facts)
  expect(Object.keys(planned)).toEqual(['a', 'b'])
  const at = (host: string) => standbysAt(host, record, facts).map(({ id }) => id)
  expect(at('p1')).toContain('a')
  expect(at('p2')).toContain('b')
  expect([...at('p1'), ...at('p2'), ...at('p3')].sort()).toEqual(['a', 'a', 'b', 'b'])
  const removed = { ...record, removed: true }
  expect([plannedStandbys(removed, facts), standbysAt('p1', removed, facts)]).toEqual([{}, []])
})

test('who leaves is to keep no copies but of its own VMs, for it would be given none', () => {
  const vms = [vm('a', 64, 1), vm('b', 64, 1), vm('c', 256)] // p3 has more to run than p2
  const record = aGroup({ vms, owners: { a: 'p1', b: 'p2', c: 'p3' } })
  const facts = { hosts: ['p1', 'p3'], leaving: ['p2'], groups: [record] }
  expect(plannedStandbys(record, facts)['a']).toEqual(['p3'])
  expect(planRestore(record, without(facts, 'p1'))?.owners).toEqual({ a: 'p3', b: 'p2', c: 'p3' })
  expect(standbysAt('p2', record, facts).map(({ id }) => id)).toEqual(['b'])
})

test('where there is no other host, nobody but the owner keeps one', () => {
  const record = aGroup({ vms: [vm('a', 64, 1)], owners: { a: 'p1' } })
  const facts = { hosts: ['p1'], groups: [record] }
  expect(plannedStandbys(record, facts)).toEqual({})
  expect(standbysAt('p1', record, facts).map(({ id }) => id)).toEqual(['a'])
})
