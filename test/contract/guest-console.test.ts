/** The serial console of a VM while its peer is busy: what the guest says comes once, and what is typed is bounded. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { parseConsole } from '../guest/console.ts'
import { bankVm, buildGuest } from '../guest/build.ts'
import { OneHost, type OneVm } from './one-vm.ts'

/** The guest prints some 150 characters every 250 ms. A unix socket takes 278 writes of one character that nobody reads. */
const BUSY_MS = 3_000

let host: OneHost
let vm: OneVm

beforeAll(async () => {
  host = await OneHost.open('portable')
  vm = await host.define('vm', bankVm(await buildGuest(), { index: 1, total: 1, memoryMiB: 96 }))
  await vm.boot()
}, 240_000)

afterAll(async () => {
  await host?.close()
})

it('has every character once and whole of what a guest says while its peer is busy', async () => {
  await vm.machine.type('go\n')
  await vm.goesOn()
  const before = (await vm.console()).lastIndexOf('\n')
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, BUSY_MS)
  await vm.goesOn()
  const text = (await vm.console()).slice(before + 1)
  const lines = text.slice(0, text.lastIndexOf('\n')).split('\n')
  expect(parseConsole(`${lines.join('\n')}\n`).length, text).toBe(lines.length)
  expect(lines.length).toBeGreaterThan(4)
}, 60_000)

it('keeps no more than a bounded amount of what is typed for a guest that does not read, and nobody waits for it', async () => {
  await vm.machine.stop()
  const pieces = await Promise.allSettled(Array.from({ length: 20 }, () => vm.machine.type('x'.repeat(65_536))))
  const refused = pieces.flatMap(piece => (piece.status === 'rejected' ? [piece.reason as unknown] : []))
  expect(refused.length).toBeGreaterThan(10)
  const error = { code: 'HYPERVISOR_CONSOLE', message: expect.stringMatching(/does not read/) }
  for (const each of refused) expect(each).toMatchObject(error)
  await vm.machine.destroy()
  await expect(vm.machine.type('x')).rejects.toMatchObject({ code: 'HYPERVISOR_STATE' })
}, 60_000)
