import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { QemuMachine } from '../../node/hypervisor/machine.ts'
import type { SharedRam } from '../../node/hypervisor/shared-ram.ts'
import { clock, quietLog } from '../contract/real-clock.ts'

const settled = (promise: Promise<unknown>): Promise<unknown> =>
  Promise.race([promise, new Promise(resolve => setTimeout(resolve, 20, 'not yet'))])

let folder: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'machine-'))
})

afterAll(async () => {
  await rm(folder, { recursive: true, force: true })
})

it('a machine that is destroyed while its RAM is made gives that RAM back, starts no QEMU, and leaves nothing', async () => {
  const asked = Promise.withResolvers<void>()
  const made = Promise.withResolvers<SharedRam>()
  let [closed, listens] = [0, 0]
  const agent = { listen: async () => void listens++, close: () => void (listens = 0) }
  const machine = new QemuMachine(
    {
      spec: { id: 'vm1', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '', nics: [], disks: [{ sizeMiB: 1 }] },
      ends: [],
      consolePath: join(folder, 'console'),
      disks: { folder: join(folder, 'layers'), starts: [{ kind: 'new' }] },
      onExit: reason => expect(reason).toBe('never told: somebody wished it')
    },
    {
      program: { path: join(folder, 'no-qemu'), sandbox: false, confined: false },
      accel: 'tcg',
      guest: 'vm1',
      paths: { qmp: join(folder, 'qmp'), consoleLog: join(folder, 'console'), agent: join(folder, 'agent') },
      agent: agent as unknown as NonNullable<ConstructorParameters<typeof QemuMachine>[1]['agent']>,
      resumesByItself: false,
      makeRam: () => (asked.resolve(), made.promise),
      captureWhy: undefined,
      clock,
      log: quietLog
    }
  )
  const started = machine.start()
  started.catch(() => {})
  await asked.promise
  const destroyed = machine.destroy()
  expect(await settled(destroyed)).toBe('not yet')
  made.resolve({ close: async () => void closed++ } as unknown as SharedRam)
  await expect(started).rejects.toMatchObject({ code: 'HYPERVISOR_STATE' })
  await destroyed
  expect({ closed, listens, pid: machine.pid, left: await readdir(folder) }).toEqual({
    closed: 1,
    listens: 0,
    pid: undefined,
    left: []
  })
})
