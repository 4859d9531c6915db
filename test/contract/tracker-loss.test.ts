/**
 * The helper that knows which pages were written may be killed at any moment, while the VM writes: the VM goes on, no image is
 * wrong, the next is of all RAM, and a restore is tracked again.
 */
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { ImageManifest } from '../../node/ports.ts'
import type { VmSpec } from '../../protocols/group.ts'
import { bankVm, buildGuest } from '../guest/build.ts'
import { type Moment, OneHost, type OneVm } from './one-vm.ts'
import { memoryLog } from './real-clock.ts'

const MEMORY_MIB = 128
const log = memoryLog()
let host: OneHost
let spec: VmSpec
let epoch = 0

beforeAll(async () => {
  const load = { dirtyPagesPerSecond: 3_000, dirtyMiB: 16 }
  spec = { ...bankVm(await buildGuest(), { index: 1, total: 1, memoryMiB: MEMORY_MIB, ...load }), cpus: 2 }
  host = await OneHost.open('dirty', log)
}, 240_000)
afterAll(() => host.close())

/** Kills the helper of this VM, which its QEMU knows by the socket; another may wait for the next VM. */
async function killTracker({ machine }: OneVm): Promise<void> {
  const environment = await readFile(`/proc/${machine.pid}/environ`, 'utf8')
  const socket = /(?:^|\0)DIAPAUSE_UFFD=([^\0]+)/.exec(environment)?.[1]
  const children = await readFile(`/proc/${process.pid}/task/${process.pid}/children`, 'utf8')
  const all = children.trim().split(' ').map(Number)
  const names = await Promise.all(all.map(pid => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')))
  const trackers = all.filter((_, i) => names[i]?.endsWith(`\0serve\0${socket}\0`))
  expect(trackers).toHaveLength(1)
  process.kill(trackers[0] ?? 0, 'SIGKILL')
}

/** A VM that is tracked and was cut already: the first of them by a boot, others from an image. */
async function running(name: string, image: ImageManifest | undefined): Promise<OneVm> {
  const vm = await host.define(name, spec)
  await (image === undefined ? vm.boot() : vm.resume(image))
  expect(vm.machine.capture).toEqual({ mode: 'dirty' })
  await vm.cut(++epoch)
  return vm
}

/** After the loss: images of all RAM, of a VM that goes on. The last of them. */
async function fallsBack(vm: OneVm): Promise<ImageManifest> {
  await expect.poll(() => vm.machine.tracking).toBeUndefined()
  expect(vm.machine.capture).toMatchObject({ mode: 'portable', why: expect.stringContaining('cannot be tracked') })
  const first = await vm.cut(++epoch)
  expect(first.mode).toBe('portable')
  expect(first.image.stats.pages).toBe(MEMORY_MIB * 256)
  expect(await vm.wrongPages(first)).toEqual([])
  const second = await vm.cut(++epoch)
  expect(second.image.stats.pagesChanged).toBeLessThan(first.image.stats.pagesNonZero / 2)
  return second.image
}

test('the next images are all of RAM wherever the helper is killed, and a restored VM is tracked again', {
  timeout: 180_000
}, async () => {
  let image: ImageManifest | undefined
  const moments: (Moment | 'between two cuts')[] = [
    'between two cuts',
    'before its first round',
    'in its pause, before the last pages',
    'in its pause, after them'
  ]
  for (const [number, moment] of moments.entries()) {
    const vm = await running(`vm${number}`, image)
    await sleep(100)
    if (moment === 'between two cuts') await killTracker(vm)
    else {
      const cut = vm.cut(++epoch, async reached => {
        if (reached === moment) await killTracker(vm)
      })
      // What was told of before is whole: only this image comes to its end.
      if (moment === 'in its pause, after them') expect(await vm.wrongPages(await cut)).toEqual([])
      else await expect(cut).rejects.toMatchObject({ code: 'HYPERVISOR_TRACKING' })
    }
    image = await fallsBack(vm)
    await vm.goesOn()
    await vm.end()
  }
  const losses = log.lines.filter(({ message }) => message.includes('background snapshots'))
  expect(losses).toHaveLength(moments.length)
})

test('a VM that is held to dirty capture runs on without its helper, and is not cut otherwise', {
  timeout: 120_000
}, async () => {
  const vm = await host.define('held', { ...spec, capture: 'dirty' })
  await vm.boot()
  await vm.cut(++epoch)
  await killTracker(vm)
  await expect.poll(() => vm.machine.tracking).toBeUndefined()
  await expect(vm.cut(++epoch)).rejects.toMatchObject({ code: 'HYPERVISOR_CAPTURE' })
  await vm.goesOn()
})
