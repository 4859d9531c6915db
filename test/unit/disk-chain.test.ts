import { describe, expect, it } from 'vitest'
import { chainsOf, diskArguments, type DiskChain } from '../../node/hypervisor/disk-chain.ts'
import { machineArguments } from '../../node/hypervisor/command-line.ts'
import type { DiskStart } from '../../node/ports.ts'
import type { DiskSpec, VmSpec } from '../../protocols/group.ts'

const vm = (disks?: readonly DiskSpec[]): VmSpec => ({
  id: 'vm1',
  memoryMiB: 64,
  kernel: 'k',
  initrd: 'i',
  append: '',
  disks
})
const BASE = { path: '/bases/a,b.qcow2', format: 'qcow2' } as const
const NBD: DiskStart = { kind: 'nbd', socketPath: '/run/x.blocks', exportName: 'disk0' }

const chainOf = (start: DiskStart = { kind: 'new' }): DiskChain => {
  const [chain] = chainsOf(vm([{ sizeMiB: 8, base: BASE }]), '/layers', [start])
  if (!chain) throw new Error('no chain')
  return chain
}

/** One cut. */
function cut(chain: DiskChain): void {
  const wanted = chain.wanted()
  if (wanted) chain.added(wanted.layer)
  chain.snapshot()
  chain.turned()
}

const namesOf = (layers: readonly { path: string }[]): string[] => layers.map(({ path }) => path)

describe('the disks of a VM', () => {
  it('leave the command line of a VM without disks as it was', () => {
    expect(diskArguments(chainsOf(vm(), '', []), vm())).toEqual([])
    const paths = { qmp: 'q', consoleLog: 'l' }
    const options = {
      accel: 'tcg',
      guest: 'g',
      spec: vm(),
      ends: [],
      paths,
      incoming: false,
      sharedRam: false
    } as const
    expect(machineArguments({ ...options, disks: [] })).toEqual(machineArguments(options))
  })

  it('are a base that is never written, a layer for what is merged, and one that is written, below a node for jobs', () => {
    const words = diskArguments([chainOf()], vm())
    const nodes = words.flatMap((word, i) => (words[i - 1] === '-blockdev' ? [JSON.parse(word) as object] : []))
    expect(nodes).toMatchObject([
      { driver: 'qcow2', 'node-name': 'd0.bottom', 'read-only': true, backing: null, file: { filename: BASE.path } },
      { driver: 'qcow2', 'node-name': 'd0.local', 'read-only': true, backing: 'd0.bottom' },
      { driver: 'qcow2', 'node-name': 'd0.1', backing: 'd0.local', file: { filename: '/layers/d0.1' } },
      { driver: 'throttle', 'node-name': 'd0', file: 'd0.1' }
    ])
    expect(words.at(-1)).toMatch(/^virtio-blk-pci,id=disk0,drive=d0,/)
  })

  it('are told to the BIOS where the VM has no kernel: it boots from the first', () => {
    const disk = { sizeMiB: 8, base: BASE }
    const devices = (spec: VmSpec) =>
      diskArguments(chainsOf(spec, '/layers', []), spec).filter(word => word.startsWith('virtio-blk-pci'))
    const withKernel = devices(vm([disk, disk]))
    const { kernel: _kernel, initrd: _initrd, append: _append, ...without } = vm([disk, disk])
    expect(devices(without)).toEqual([`${withKernel[0]},bootindex=0`, withKernel[1]])
    expect(withKernel.join()).not.toContain('bootindex')
  })

  it('stand on what is served over NBD after a restore, and not on their base', () => {
    const [bottom] = chainOf(NBD).nodes
    expect(bottom).toMatchObject({
      driver: 'nbd',
      server: { path: '/run/x.blocks' },
      export: 'disk0',
      'read-only': true
    })
  })
})

describe('the layers of a disk', () => {
  it('are frozen until they are released, the oldest first', () => {
    const chain = chainOf()
    for (let n = 0; n < 3; n++) cut(chain)
    expect(namesOf(chain.frozen())).toEqual(['/layers/d0.1', '/layers/d0.2', '/layers/d0.3'])
    chain.release(new Set(['/layers/d0.2', '/layers/d0.4', '/elsewhere']))
    expect(namesOf(chain.frozen())).toEqual(['/layers/d0.1', '/layers/d0.3'])
  })

  it('are merged up to the first that is still needed', () => {
    const chain = chainOf()
    for (let n = 0; n < 4; n++) cut(chain)
    expect(chain.job()).toBeUndefined()
    chain.release(new Set(['/layers/d0.2', '/layers/d0.4']))
    expect(chain.job()).toBeUndefined()
    chain.release(new Set(['/layers/d0.1']))
    const job = chain.job()
    expect(job).toMatchObject({
      kind: 'merge',
      arguments: { device: 'd0', 'top-node': 'd0.2', 'base-node': 'd0.local', 'backing-file': 'local' }
    })
    if (!job) return
    cut(chain) // while it runs
    expect(namesOf(chain.done(job))).toEqual(['/layers/d0.2', '/layers/d0.1'])
    expect(namesOf(chain.frozen())).toEqual(['/layers/d0.3', '/layers/d0.5'])
    expect(chain.length).toBe(5)
  })

  it('become one where epochs come to nothing, before they are read for the next', () => {
    const chain = chainOf()
    for (let n = 0; n < 8; n++) cut(chain)
    chain.join()
    expect(chain.job()).toMatchObject({
      kind: 'join',
      arguments: { device: 'd0', 'top-node': 'd0.8', 'base-node': 'd0.1', 'backing-file': 'local' }
    })
    chain.apart()
    expect(chain.job()).toBeUndefined()
    chain.join()
    const job = chain.job()
    cut(chain)
    const names = [
      '/layers/d0.8',
      '/layers/d0.7',
      '/layers/d0.6',
      '/layers/d0.5',
      '/layers/d0.4',
      '/layers/d0.3',
      '/layers/d0.2'
    ]
    if (job) expect(namesOf(chain.done(job))).toEqual(names)
    expect(namesOf(chain.frozen())).toEqual(['/layers/d0.1', '/layers/d0.9'])
    expect(chain.job()).toBeUndefined()
    chain.release(new Set(['/layers/d0.1']))
    expect(chain.job()).toMatchObject({ kind: 'merge', arguments: { 'top-node': 'd0.1', 'base-node': 'd0.local' } })
  })

  it('that are few stay as they are, and those of a released one are merged first', () => {
    const chain = chainOf()
    for (let n = 0; n < 8; n++) cut(chain)
    chain.release(new Set(['/layers/d0.1']))
    chain.join()
    const merge = chain.job()
    expect(merge?.kind).toBe('merge')
    if (merge) chain.done(merge)
    expect(chain.job()).toBeUndefined()
  })

  it('are made once for a cut, however often it is prepared', () => {
    const chain = chainOf()
    const wanted = chain.wanted()
    expect(wanted?.layer.path).toBe('/layers/d0.2')
    expect(chain.wanted()?.layer.path).toBe('/layers/d0.2') // it could not be added
    if (wanted) chain.added(wanted.layer)
    expect(chain.wanted()).toBeUndefined()
    expect(chain.snapshot()).toEqual({ type: 'blockdev-snapshot', data: { node: 'd0.1', overlay: 'd0.2' } })
  })

  it('are streamed into from NBD first, but merged in between where they are many', () => {
    const chain = chainOf(NBD)
    for (let n = 0; n < 8; n++) cut(chain)
    expect(chain.job()).toMatchObject({ kind: 'stream', arguments: { device: 'd0.local' } })
    chain.release(new Set(namesOf(chain.frozen())))
    const merge = chain.job()
    expect(merge?.kind).toBe('merge')
    if (merge) chain.done(merge)
    const stream = chain.job()
    expect(stream?.kind).toBe('stream')
    expect(chain.remote).toBe('d0.bottom')
    if (stream) chain.done(stream)
    expect([chain.remote, chain.job()]).toEqual([undefined, undefined])
  })
})
