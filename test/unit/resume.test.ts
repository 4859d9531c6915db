import { expect, it } from 'vitest'
import { resumeOnStandby } from '../../node/agents/resume.ts'
import type { Clock, Machine, NicPort, Restore } from '../../node/ports.ts'

const clock: Clock = { now: () => 0, after: () => () => {} }
const nothing = new Promise<never>(() => {})

function resuming(restore: Partial<Restore>, machine: Partial<Machine>) {
  const parts = {
    nic: { inject: async () => {} } as unknown as NicPort,
    mayRun: Promise.resolve(),
    clock,
    bootSet: Promise.resolve(restore as Restore),
    socketPath: 'incoming',
    alive: async () => {}
  }
  return resumeOnStandby(machine as Machine, parts)
}

it('a standby copy whose thread dies before it has sent the devices is given up: QEMU alone would wait for ever', async () => {
  const serve = () => Promise.reject(new Error('the thread has died'))
  const load = (_: string, connectable: () => void) => {
    connectable()
    return nothing
  }
  await expect(resuming({ serve }, { load, resume: async () => {} })).rejects.toThrow('the thread has died')
})

it('a standby copy runs when its devices are loaded, whenever the thread says that it is done', async () => {
  const calls: string[] = []
  const load = async (_: string, connectable: () => void) => {
    connectable()
    calls.push('loaded')
  }
  const { complete } = await resuming({ serve: () => nothing }, { load, resume: async () => void calls.push('runs') })
  expect(calls).toEqual(['loaded', 'runs'])
  expect(await Promise.race([complete, Promise.resolve('later')])).toBe('later')
})
