/** The disks of a VM: what they begin with, which files an image is made of, and when they are local. */
import { describe, expect, it } from 'vitest'
import { LocalDisks } from '../../node/agents/local-disks.ts'
import type { BlockSource, DiskFile, Machine, Restore } from '../../node/ports.ts'
import type { DiskSpec, VmSpec } from '../../protocols/group.ts'
import { quietLog } from '../contract/real-clock.ts'

const BASE = { path: '/base', format: 'raw' } as const

function world(specs: readonly DiskSpec[]) {
  const calls: string[] = []
  const here = Promise.withResolvers<void>()
  const release = (files: readonly DiskFile[]): void =>
    void calls.push(`release ${files.map(({ path }) => path).join()}`)
  const join = (): void => void calls.push('join')
  const machine = { disks: { here: here.promise, release, join } } as unknown as Machine
  let served: ReadonlyMap<string, BlockSource> = new Map()
  const spec = { id: 'v', disks: specs } as unknown as VmSpec
  const disks = new LocalDisks(
    spec,
    { group: 'g', generation: 4 },
    {
      clock: { now: () => 7, after: () => () => {} },
      log: quietLog,
      serveBlocks: async (path, all) => {
        served = all
        calls.push(`serve ${path}`)
        return { close: async () => void calls.push('close') }
      },
      path: kind => `/${kind}`
    }
  )
  return { calls, here, machine, disks, served: () => served }
}

const layer = (path: string): DiskFile => ({ disk: 0, path, format: 'qcow2' })

describe('the disks of a VM', () => {
  it('that boots are new, and its images hold their bases until one is committed', () => {
    const { disks, machine, calls } = world([{ sizeMiB: 1, base: BASE }, { sizeMiB: 2 }])
    expect(disks.fresh()).toEqual({ folder: '/layers.4', starts: [{ kind: 'new' }, { kind: 'new' }] })
    disks.begun(machine)
    expect(disks.local).toBeUndefined()
    expect(disks.cutTo(1, [layer('a')])).toEqual([{ disk: 0, ...BASE }, layer('a')])
    expect(disks.cutTo(2, [layer('a'), layer('b')])).toEqual([{ disk: 0, ...BASE }, layer('a'), layer('b')])
    disks.committed(2, machine)
    expect(calls).toEqual(['release a,b'])
    expect(disks.cutTo(3, [layer('c')])).toEqual([layer('c')])
    disks.committed(1, machine)
    expect(calls).toEqual(['release a,b'])
  })

  it('that is restored are served until they are local, which is told with what was read', async () => {
    const { disks, machine, calls, here, served } = world([{ sizeMiB: 1, base: BASE }])
    const source = { read: async (_: number, length: number) => new Uint8Array(length) }
    const image = { disks: [source], closeDisks: async () => void calls.push('closeDisks') } as unknown as Restore
    const starts = [{ kind: 'nbd', socketPath: '/blocks', exportName: 'disk0' }]
    expect(await disks.restored(Promise.resolve(image))).toEqual({ folder: '/layers.4', starts })
    disks.begun(machine)
    await served().get('disk0')?.read(0, 4096)
    expect(calls).toEqual(['serve /blocks'])
    here.resolve()
    expect(await disks.local).toEqual({ bytes: 4096, ms: 0 })
    expect(calls).toEqual(['serve /blocks', 'close', 'closeDisks'])
    await disks.end()
    expect(calls).toHaveLength(3)
    expect(disks.cutTo(9, [layer('a')])).toEqual([layer('a')])
  })

  it('may become one layer when all epochs that are made of them are void', () => {
    const { disks, machine, calls } = world([{ sizeMiB: 1 }])
    disks.fresh()
    disks.cutTo(1, [layer('a')])
    disks.cutTo(2, [layer('a'), layer('b')])
    disks.voided(1, machine)
    expect(calls).toEqual([])
    disks.voided(2, machine)
    expect(calls).toEqual(['join'])
    disks.committed(2, machine)
    expect(calls).toEqual(['join'])
  })

  it('are none where the specification has none', async () => {
    const { disks, calls } = world([])
    expect(disks.none).toBe(true)
    expect(disks.fresh()).toBeUndefined()
    expect(await disks.restored(new Promise(() => {}))).toBeUndefined()
    await disks.end()
    expect(calls).toEqual([])
  })
})
