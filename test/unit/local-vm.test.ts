import { describe, expect, it } from 'vitest'
import type { CutWords } from '../../node/agents/cut-words.ts'
import { LocalVm } from '../../node/agents/local-vm.ts'
import { DiapauseError } from '../../node/errors.ts'
import { leftRejected } from './left-rejected.ts'
import { atOnce, nowhere, turns, World } from './local-vm-world.ts'

describe('a VM of this peer', () => {
  it('tells why its machine died while it was restored, and not that a socket was closed', async () => {
    const world = new World()
    const { complete } = await world.resume()
    const failed: unknown[] = []
    complete.catch((error: unknown) => failed.push(error))
    world.served.reject(new DiapauseError('MIGRATION_STREAM_CLOSED', 'QEMU has closed its incoming socket'))
    await turns()
    expect(failed).toEqual([])
    world.exit('it was killed by SIGKILL')
    expect(world.ends).toEqual(['it was killed by SIGKILL'])
    for (const fn of world.due) fn()
    await turns()
    expect(failed).toMatchObject([{ code: 'MIGRATION_STREAM_CLOSED' }])
  })

  it('waits with other errors of a restore for nothing', async () => {
    const world = new World()
    const { complete } = await world.resume()
    world.served.reject(new DiapauseError('SHARD_LOST', 'too few shards'))
    await expect(complete).rejects.toMatchObject({ code: 'SHARD_LOST' })
  })

  it('takes the colour of an epoch that it was told is void while its NIC was being made, or it would stay deaf', async () => {
    const world = new World()
    const attached = Promise.withResolvers<void>()
    world.attached = attached.promise
    const resumed = world.resume()
    world.vm.voided(5)
    world.vm.voided(3)
    attached.resolve()
    const { complete } = await resumed
    complete.catch(() => {})
    expect(world.calls).toEqual(['abandon 5'])
  })

  it.each([
    ['it is ended first', (world: World) => void world.vm.destroy()],
    ['the switch refuses its generation', (world: World) => world.refuse()]
  ])('gives back all of a standby copy that it does not come to attach, where %s', async (_, end) => {
    const world = new World()
    world.machineGone.resolve()
    end(world)
    await expect(world.resume(world.standby())).rejects.toThrow()
    await world.vm.destroy()
    for (const part of ['machine', 'worker', 'restore', 'disks', 'reserved NICs']) expect(world.calls).toContain(part)
  })

  it('lets no frame in during a cut, also when it has just got its lease back', async () => {
    const world = new World()
    const { complete } = await world.resume()
    complete.catch(() => {})
    world.vm.fence()
    world.vm.unfence()
    const cut = Promise.withResolvers<void>()
    world.vm.cut(5, nowhere, atOnce, () => cut.resolve()).catch(() => {})
    await turns()
    world.resumed.resolve()
    await turns()
    expect(world.open).toBe(false)
    world.stopped.resolve()
    await cut.promise
    await turns()
    expect(world.open).toBe(true)
  })

  it('takes no other image worker where its own goes because it is ended itself, and one where it dies', async () => {
    for (const ended of [true, false]) {
      const world = new World()
      world.machineGone.resolve()
      const copying = Promise.withResolvers<void>()
      copying.promise.catch(() => {})
      world.copying = copying
      const { complete } = await world.resume()
      complete.catch(() => {})
      world.resumed.resolve()
      world.stopped.resolve()
      const cut = world.vm.cut(5, nowhere, atOnce, () => {})
      cut.catch(() => {})
      await turns()
      const gone = ended ? world.vm.destroy() : undefined
      const before = world.opened
      copying.reject(new DiapauseError('IMAGE_WORKER', 'it has ended'))
      await expect(cut).rejects.toThrow()
      await gone
      expect(world.opened - before).toBe(ended ? 0 : 1)
    }
  })

  it('is cut while it is still being copied, when frames of VMs that were cut wait for it', async () => {
    const world = new World()
    world.copying = Promise.withResolvers()
    const { complete } = await world.resume()
    complete.catch(() => {})
    const [cut, hurry] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    world.stopped.resolve()
    world.vm.cut(5, nowhere, { ...atOnce, hurry: hurry.promise }, () => cut.resolve()).catch(() => {})
    await turns()
    expect(world.calls).toEqual([])
    hurry.resolve()
    await cut.promise
    expect(world.calls).toEqual(['copyLast of 2 ranges'])
  })

  it('lets frames in when its lease is back for the last time, and not when it was for a moment', async () => {
    const world = new World()
    world.vm.fence()
    const { complete } = await world.resume()
    complete.catch(() => {})
    expect(world.open).toBe(false)
    world.vm.unfence()
    world.vm.fence()
    world.resumed.resolve()
    await turns()
    expect(world.open).toBe(false)
    world.vm.unfence()
    await turns()
    expect(world.open).toBe(true)
  })

  describe('that is cut for a rest', () => {
    const forRest: CutWords = { ...atOnce, rests: () => true }

    async function resting() {
      const world = new World()
      const { complete } = await world.resume()
      complete.catch(() => {})
      const cut = Promise.withResolvers<void>()
      world.stopped.resolve()
      world.vm.cut(5, nowhere, forRest, () => cut.resolve()).catch(() => {})
      await cut.promise
      await turns()
      return world
    }

    it('stays as it was cut, and goes on where that epoch comes to nothing', async () => {
      const world = await resting()
      expect([world.open, world.went]).toEqual([false, ['stays']])
      world.vm.voided(4)
      world.resumed.resolve()
      await turns()
      expect(world.open).toBe(false)
      world.vm.voided(5)
      await turns()
      expect([world.open, world.went]).toEqual([true, ['stays', 'on']])
    })

    it('stays although it gets its lease back, and goes on with it where that epoch came to nothing meanwhile', async () => {
      const world = await resting()
      world.resumed.resolve()
      world.vm.fence()
      world.vm.unfence()
      await turns()
      expect([world.open, world.went]).toEqual([false, ['stays']])
      world.vm.fence()
      world.vm.voided(5)
      await turns()
      expect([world.open, world.went]).toEqual([false, ['stays']])
      world.vm.unfence()
      await turns()
      expect([world.open, world.went]).toEqual([true, ['stays', 'on']])
    })

    it('goes on at once where the epoch came to nothing while it was being cut', async () => {
      const world = new World()
      const { complete } = await world.resume()
      complete.catch(() => {})
      world.resumed.resolve()
      world.vm.cut(5, nowhere, forRest, () => {}).catch(() => {})
      await turns()
      world.vm.voided(5)
      world.stopped.resolve()
      await turns()
      expect([world.open, world.went]).toEqual([true, ['stays', 'on']])
    })
  })

  it('does not go on without the lease that lapsed while it waited for others, nor when it is gone by then', async () => {
    for (const gone of [false, true]) {
      const others = Promise.withResolvers<void>()
      const world = new World(() => others.promise)
      const standby = world.standby()
      Object.assign(standby.machine, { resume: async () => void world.calls.push('runs') })
      world.machineGone.resolve()
      const resumed = world.resume(standby).then(
        () => 'it runs',
        () => 'it is over'
      )
      await turns()
      world.vm.fence()
      others.resolve()
      await turns()
      expect(world.calls).toEqual([])
      if (gone) await world.vm.destroy()
      else world.vm.unfence()
      expect([await resumed, world.calls.includes('runs')]).toEqual(gone ? ['it is over', false] : ['it runs', true])
    }
  })

  it('leaves nothing rejected that fails while a copy that it was given too late is ended', async () => {
    const world = new World()
    await world.vm.destroy()
    const lost = async (code: string): Promise<never> => {
      await turns()
      throw new DiapauseError(code, 'it comes while the machine of the copy is being ended')
    }
    const committed = { epoch: 4, images: {} } as unknown as Parameters<LocalVm['resumeFrom']>[0]
    const why: unknown[] = []
    const left = await leftRejected(() => {
      const resumed = world.vm.resumeFrom(committed, lost('SHARD_LOST'), lost('LEASE_REFUSED'), world.standby())
      resumed.catch((error: unknown) => why.push(error))
    })
    expect([left, why]).toEqual([[], []])
    world.machineGone.resolve()
    await turns()
    expect(why).toMatchObject([{ code: 'VM_DESTROYED' }])
  })

  it('ends all its parts at once, however long its machine takes', async () => {
    const world = new World()
    const { complete } = await world.resume()
    complete.catch(() => {})
    const gone = world.vm.destroy()
    await turns()
    expect(world.calls.toSorted()).toEqual(['machine', 'nic', 'restore', 'worker'])
    world.machineGone.resolve()
    await gone
  })

  it('has ended when a NIC that was still being made is gone, too: its successor uses the same sockets', async () => {
    const world = new World()
    const attached = Promise.withResolvers<void>()
    world.attached = attached.promise
    const resumed = world.resume()
    resumed.catch(() => {})
    await turns()
    let ended = false
    const gone = world.vm.destroy().then(() => {
      ended = true
    })
    world.machineGone.resolve()
    await turns()
    expect([ended, world.calls.includes('nic')]).toEqual([false, false])
    attached.resolve()
    await gone
    expect(world.calls).toContain('nic')
    await expect(resumed).rejects.toMatchObject({ code: 'VM_DESTROYED' })
  })
})
