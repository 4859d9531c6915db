import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { bytesText, durationText, eventText, statusText } from '../../node/edge/format.ts'
import type { PeerStatus } from '../../node/edge/view.ts'
import { countsLine, runVitest } from '../counts.ts'
import { atLeast, atMost, equal, exitCode, machineFacts, note, reportText, writeReport } from '../measure.ts'

describe('a report', () => {
  it('fails where one check is not ok, and a bound itself is', async () => {
    const machine = await machineFacts('tcg')
    const good = [atMost('a', 5, 5, 'ms'), atLeast('b', 5, 5, 'GB/s'), equal('c', true, true), note('d', 3)]
    expect(exitCode({ name: 'x', machine, checks: good })).toBe(0)
    for (const bad of [atMost('a', 5.1, 5, 'ms'), atLeast('b', NaN, 5, ''), equal('c', 1, true)]) {
      expect(exitCode({ name: 'x', machine, checks: [...good, bad] })).toBe(1)
    }
  })

  it('is read by people as a table, and by programs as JSON', async () => {
    const machine = { cpu: 'C', cores: 2, memoryGiB: 4, kernel: '6.1', node: '24.0.0', qemu: '7.2', accel: 'tcg' }
    const checks = [atMost('pauseMs', 12.3456, 60, 'ms'), equal('same', false, true)]
    const report = { name: 'demo', machine, checks, epochs: [1] }
    expect(reportText(report, false)).toBe(
      [
        'demo',
        'C, 2 cores, 4 GiB, Linux 6.1, Node 24.0.0, QEMU 7.2, tcg',
        '',
        '                 value     bound',
        'ok      pauseMs  12.35 ms  <= 60',
        'FAILED  same     false     true',
        '',
        '1 of 2 checks failed'
      ].join('\n')
    )
    const folder = mkdtempSync(join(tmpdir(), 'diapause-report-'))
    writeReport(join(folder, 'out.json'), report)
    expect(JSON.parse(readFileSync(join(folder, 'out.json'), 'utf8'))).toEqual(report)
    expect(() => writeReport(join(folder, 'none', 'out.json'), report)).toThrow(
      expect.objectContaining({ name: 'UsageError', code: 'REPORT_FILE' })
    )
    rmSync(folder, { recursive: true })
  })
})

describe('counting tests', () => {
  it('counts a run that never came to its tests as one failure', async () => {
    expect(await runVitest(['--no-such-option'], 'ignore')).toEqual({ passed: 0, failed: 1 })
    expect(await runVitest(['no-such-test'], 'ignore')).toEqual({ passed: 0, failed: 1 })
    expect(countsLine({ passed: 2, failed: 1 })).toBe('2 passed, 1 failed')
  })
})

describe('what the command line prints', () => {
  it('is sizes, times and events in units people use', () => {
    expect([0, 1023, 1024, 1.5 * 2 ** 30].map(bytesText)).toEqual(['0 B', '1023 B', '1.0 KiB', '1.5 GiB'])
    expect([1_500, 61_000, 3_700_000, 90_000_000].map(durationText)).toEqual([
      '1.5 s',
      '1 min 1 s',
      '1 h 1 min',
      '1 d 1 h'
    ])
    const at = new Date(2026, 0, 2, 3, 4, 5, 6).getTime()
    expect(eventText({ atMs: at + 0.7, kind: 'cut', vm: 'a', pauseMs: 7.25, why: 'two words' })).toBe(
      '03:04:05.006 cut vm=a pauseMs=7.3 why="two words"'
    )
  })

  it('is the status with names instead of ids', () => {
    const vm = { id: 'vm1', mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' }
    const member = {
      address: '/ip4/127.0.0.1/tcp/1',
      role: 'storage',
      liveness: 'alive',
      connected: true,
      votes: true
    } as const
    const status: PeerStatus = {
      name: 'one',
      id: 'id1',
      version: '0.1.0',
      cluster: 'home',
      pid: 7,
      uptimeMs: 61_000,
      hypervisor: 'QEMU 7.2, tcg',
      capture: { mode: 'dirty' },
      members: [
        { ...member, name: 'one', id: 'id1' },
        { ...member, name: 'two', id: 'id2', liveness: 'suspect', connected: false, votes: false }
      ],
      code: { k: 3, m: 2, storage: 2, tolerates: 0, domains: [] },
      groups: [
        {
          record: {
            id: 'bank',
            version: 3,
            generation: 2,
            vms: [vm],
            owners: { vm1: 'id2' },
            outputCommit: true,
            openFlow: true,
            lastEpoch: 5,
            open: { epoch: 5, proposer: 'id1', deadlineMs: 1 },
            committed: { epoch: 4, generation: 1, previousEpoch: 0, images: {} },
            removed: false
          },
          running: [],
          captures: {},
          leaseRemainingMs: 0
        }
      ],
      frames: {
        delivered: 1,
        heldEarly: 2,
        recordedInFlight: 3,
        refusedGeneration: 4,
        refusedSource: 0,
        heldFenced: 0,
        droppedUnknown: 5,
        bridgeUp: 9,
        bridgeDown: 10,
        outputWaiting: 6,
        outputWaitingBytes: 6_144,
        outputReleased: 7,
        outputDiscarded: 8,
        outputLongestMs: 61_000
      },
      refused: { frames: 4, reports: 1, shards: 2, claims: 3, changes: 9 },
      store: { streams: 1, manifests: 1, bytes: 2_048 },
      redundancy: null
    }
    expect(statusText({ ...status, groups: [] })).not.toContain('output')
    const [group] = status.groups
    if (!group) throw new Error('no group')
    const fallen = { vm1: { mode: 'portable', why: 'its tracker died' } } as const
    const lines = statusText({ ...status, groups: [{ ...group, running: ['vm1'], captures: fallen }] }).split('\n')
    expect(lines).toContain('  vm1  two    64 MiB  running, portable')
    expect(lines).toContain('  vm1 is cut by streams of all its RAM: its tracker died')
    const everywhere = { mode: 'portable', why: 'no C compiler' } as const
    const portable = { ...group, running: ['vm1'], captures: { vm1: everywhere } }
    const once = statusText({ ...status, capture: everywhere, groups: [portable] })
    expect(once.match(/no C compiler/g)).toHaveLength(1)
    expect(once).toContain('  capture portable: no C compiler\n')
    expect(statusText({ ...status, capture: null })).not.toContain('capture')
    expect(statusText(status).split('\n')).toEqual([
      'peer one of cluster home, diapause 0.1.0, up 1 min 1 s',
      '  id1, process 7, QEMU 7.2, tcg',
      '  capture dirty',
      '',
      '  member  role     vote  liveness  connected    address',
      '  one     storage  yes   alive     (this peer)  /ip4/127.0.0.1/tcp/1',
      '  two     storage  no    suspect   no           /ip4/127.0.0.1/tcp/1',
      'new snapshots (k = 3, m = 2): none of 2 storage members may vanish',
      '',
      'group bank: epoch 4 committed, epoch 5 open, generation 2, output commit, OpenFlow',
      '  vm   owner  memory  here',
      '  vm1  two    64 MiB',
      '',
      'frames: 1 delivered, 2 held (early), 3 recorded (in flight), 0 waited for a lease, 5 dropped (unknown)',
      'bridge: 9 frames came up to this peer, 10 went down, all others passed it',
      'output: 6 frames (6.0 KiB) wait for their epoch, 7 let out, 8 rolled back, longest wait 1 min 1 s',
      'refused, as of a generation that is over: 4 frames, 1 reports, 2 shards, 3 claims of leases, 9 changes of this peer',
      'store:  2.0 KiB in 1 streams and 1 manifests'
    ])
  })
})
