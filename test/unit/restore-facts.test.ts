import { expect, test } from 'vitest'
import { restoreFacts } from '../../node/agents/restore-facts.ts'
import { placeRestore, whyHomeless } from '../../node/planning/placement.ts'
import { aGroup, aVm } from './group-records.ts'

const committed = { epoch: 1, generation: 1, previousEpoch: 0, images: { a: 'i' } }
const record = aGroup({ vms: [aVm('a', { memoryMiB: 256 })], owners: { a: 'p1' }, committed })

const world = {
  hosts: () => ['p1', 'p2', 'p3', 'p4'],
  leaving: () => ['p5'],
  detector: { alive: () => ['p2', 'p3', 'p5'] },
  directory: { all: () => [record] }
}

test('facts are of those who live, what they have said of themselves, and where columns were planned before somebody died', () => {
  const about = (peers: readonly string[]) => peers.map(peer => ({ peer, vmMemoryMiB: peer === 'p2' ? 128 : 512 }))
  const facts = restoreFacts({ ...world, about, shape: { k: 2, m: 1 } }, record)
  expect(facts).toMatchObject({ hosts: ['p2', 'p3'], leaving: ['p5'], groups: [record] })
  expect(facts.known?.map(({ peer }) => peer)).toEqual(['p2', 'p3', 'p5'])
  const columns = facts.columns?.['a'] ?? {}
  expect(columns).toEqual({ p1: 1, p2: 1, p3: 1, p4: 1 })
  expect(placeRestore(record, facts).owners).toEqual({ a: 'p3' })
})

test('of what has no image yet nobody has columns', () => {
  const about = (peers: readonly string[]) => peers.map(peer => ({ peer }))
  const facts = restoreFacts({ ...world, about, shape: { k: 2, m: 1 } }, { ...record, committed: null })
  expect(facts.columns).toEqual({ a: {} })
})

test('of those who have said nothing all can be lost and all can be given, as before there was anything to say', () => {
  const facts = restoreFacts(world, record)
  expect(facts).toMatchObject({ known: [], standbys: {}, columns: { a: {} } })
  expect(placeRestore(record, facts).owners).toEqual({ a: 'p2' })
})

test('who leaves is to keep no copies of others, also when it is dead', () => {
  const [a] = record.vms.map(vm => ({ ...vm, standby: 1 }))
  const b = { ...a, id: 'b' } as typeof a
  const both = { ...record, vms: [a, b].flatMap(vm => vm ?? []), owners: { a: 'p2', b: 'p5' } }
  const alone = { hosts: () => ['p2'], leaving: () => ['p5'], directory: { all: () => [both] } }
  for (const alive of [['p2', 'p5'], ['p2']]) {
    expect(restoreFacts({ ...alone, detector: { alive: () => alive } }, both).standbys).toEqual({ b: ['p2'] })
  }
})

test('where nobody has room, people are told for which VM', () => {
  const about = (peers: readonly string[]) => peers.map(peer => ({ peer, vmMemoryMiB: 64 }))
  const facts = restoreFacts({ ...world, about }, record)
  expect(whyHomeless(placeRestore(record, facts).homeless, facts)).toContain('a (256 MiB)')
  expect(whyHomeless(record.vms, { ...facts, hosts: [] })).toBe('No living peer can run VMs.')
})
