/**
 * A machine that waits on a RAM file, with real QEMU: the file follows a VM's images from cut to cut, is RAM byte for byte at
 * each, also when the VM is loaded, and the VM's next cuts are right and small.
 */
import { statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Restore } from '../../node/ports.ts'
import { bankVm, buildGuest, type Guest } from '../guest/build.ts'
import { type Cut, differentPages, OneHost, type OneVm } from './one-vm.ts'

const MEMORY_MIB = 128
let guest: Guest
let host: OneHost

beforeAll(async () => {
  guest = await buildGuest()
  host = await OneHost.open('dirty')
}, 240_000)
afterAll(() => host.close())

const specOf = () =>
  bankVm(guest, {
    index: 1,
    total: 1,
    memoryMiB: MEMORY_MIB,
    dirtyPagesPerSecond: 1_000,
    dirtyMiB: 16,
    intervalUs: 5_000
  })

async function waiting(name: string): Promise<{ vm: OneVm; ramPath: string }> {
  const vm = await host.define(name, specOf())
  const ramPath = (await vm.machine.wait?.())?.ramPath ?? ''
  expect(vm.machine.tracking?.ramPath).toBe(ramPath)
  return { vm, ramPath }
}

/** Resolves when the VM stands still, loaded. */
async function load(vm: OneVm, restore: Restore): Promise<void> {
  const socketPath = join(host.folder, `${vm.name}.in`)
  let serving: Promise<unknown> | undefined
  await vm.machine.load?.(socketPath, () => {
    serving = restore.serve(socketPath)
  })
  expect(await serving).toEqual({ pagesFaulted: 0, pagesPushed: 0 })
}

async function expectImage(ramPath: string, { ram }: Cut): Promise<void> {
  expect(differentPages(await readFile(ramPath), ram)).toEqual([])
}

test('a RAM file follows the images of a VM, and the VM goes on from it and is cut again', {
  timeout: 240_000
}, async () => {
  let source = await host.define('source', specOf())
  await source.boot()
  let epoch = 0
  for (const name of ['first', 'second']) {
    const standby = await waiting(name)
    let last: Cut | undefined
    let restore: Restore | undefined
    for (let n = 0; n < 4; n++) {
      await sleep(200)
      last = await source.cut(++epoch)
      if (n === 2) continue // an epoch that it does not come to follow
      restore = await standby.vm.worker.restore(last.image, standby.ramPath)
      await expectImage(standby.ramPath, last)
    }
    if (last === undefined || restore === undefined) throw new Error('no cut')
    await source.end()
    await load(standby.vm, restore)
    await expectImage(standby.ramPath, last)
    await standby.vm.machine.resume()
    await standby.vm.goesOn()
    const next = await standby.vm.cut(++epoch)
    expect(await standby.vm.wrongPages(next)).toEqual([])
    expect(next.mode).toBe('dirty')
    expect(next.image.stats.pagesChanged).toBeLessThan(last.image.stats.pagesNonZero / 2)
    source = standby.vm
  }
  await source.end()
})

test('a file that was left between two images is made one by the next', { timeout: 120_000 }, async () => {
  const source = await host.define('torn-source', specOf())
  await source.boot()
  const cuts: Cut[] = []
  for (let epoch = 1; epoch <= 3; epoch++) {
    cuts.push(await source.cut(epoch))
    await sleep(500)
  }
  await source.end()
  const { vm, ramPath } = await waiting('torn')
  let failures = 0
  let filled = 0
  for (let allowed = 4, n = 0; failures === n; allowed *= 2, n++) {
    let reads = 0
    host.cluster.beforeRead = async () => {
      if (++reads > allowed) throw new Error('no more reads')
    }
    const { image } = cuts[n % cuts.length] as Cut
    await vm.worker.restore(image, ramPath).catch(() => failures++)
    filled = Math.max(filled, failures > n ? statSync(ramPath).blocks : 0)
  }
  host.cluster.beforeRead = async () => {}
  expect(filled).toBeGreaterThan(0) // some failed when pages had been written
  const last = cuts[failures % cuts.length] as Cut
  await expectImage(ramPath, last)
  for (const cut of [...cuts].reverse()) {
    await vm.worker.restore(cut.image, ramPath)
    await expectImage(ramPath, cut)
  }
  await vm.end()
})
