import { execFileSync } from 'node:child_process'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DiskLayers } from '../../node/hypervisor/disk-layers.ts'
import type { QmpClient } from '../../node/hypervisor/qmp.ts'
import type { DiskStart } from '../../node/ports.ts'
import type { VmSpec } from '../../protocols/group.ts'
import { clock, quietLog } from '../contract/real-clock.ts'

let folder: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'disk-layers-'))
})

afterAll(() => rm(folder, { recursive: true, force: true }))

function layersOf(name: string, basePath: string, start: DiskStart): { layers: DiskLayers; files: string } {
  const base = { path: basePath, format: 'raw' } as const
  const vm: VmSpec = { id: 'vm1', memoryMiB: 64, kernel: 'k', initrd: 'i', append: '', disks: [{ sizeMiB: 1, base }] }
  const files = join(folder, name)
  return { layers: new DiskLayers(vm, { folder: files, starts: [start] }, { log: quietLog, clock }), files }
}

const NBD: DiskStart = { kind: 'nbd', socketPath: '/run/x.blocks', exportName: 'disk0' }
const NEW: DiskStart = { kind: 'new' }

describe('the files of a VM that starts', () => {
  it('need no base where the disk comes out of an image: the host that takes a VM over may not have it', async () => {
    const { layers, files } = layersOf('restored', join(folder, 'nowhere'), NBD)
    await layers.create()
    expect((await readdir(files)).sort()).toEqual(['d0.1', 'd0.local'])
  })

  it('need the base at the first boot, and one that is a file and fits', async () => {
    const refusal = (basePath: string) => layersOf('first', basePath, NEW).layers.create()
    await expect(refusal(join(folder, 'nowhere'))).rejects.toMatchObject({ code: 'HYPERVISOR_DISK' })
    const pipe = join(folder, 'pipe')
    execFileSync('mkfifo', [pipe])
    await expect(refusal(pipe)).rejects.toThrow('no file')
    const large = join(folder, 'large')
    await writeFile(large, new Uint8Array(2 << 20))
    await expect(refusal(large)).rejects.toThrow('make that larger')
    await writeFile(large, new Uint8Array(1 << 20))
    await refusal(large)
  })

  it('are removed with it', async () => {
    const { layers, files } = layersOf('ended', join(folder, 'nowhere'), NBD)
    await layers.create()
    await layers.remove()
    expect(await readdir(folder)).not.toContain(basename(files))
  })
})

describe('jobs on the disks of a VM', () => {
  it('do not begin while one is broken off for a cut, whatever is let go meanwhile', async () => {
    const { layers } = layersOf('cut', join(folder, 'nowhere'), NBD)
    await layers.create()
    const commands: string[] = []
    const waiters: { readonly names: readonly string[]; tell(event: object): void }[] = []
    const qmp = {
      command: async (name: string) => void commands.push(name),
      waitEvent: (names: string | readonly string[]) =>
        new Promise(resolve => waiters.push({ names: [names].flat(), tell: resolve }))
    }
    layers.attach(qmp as unknown as QmpClient, () => {})
    layers.goOn()
    await expect.poll(() => commands).toEqual(['block-stream'])
    const cut = layers.enterCut(true)
    await expect.poll(() => commands).toEqual(['block-stream', 'block-job-cancel'])
    layers.join()
    const ended = waiters.find(({ names }) => names.includes('BLOCK_JOB_CANCELLED'))
    ended?.tell({ name: 'BLOCK_JOB_CANCELLED', data: {} })
    await cut
    expect(commands).toEqual(['block-stream', 'block-job-cancel', 'blockdev-add'])
    layers.goOn()
    await expect.poll(() => commands.at(-1)).toBe('block-stream')
  })
})
