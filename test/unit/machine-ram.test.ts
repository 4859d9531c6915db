import { describe, expect, it } from 'vitest'
import { MachineRam } from '../../node/hypervisor/machine-ram.ts'
import type { SharedRam } from '../../node/hypervisor/shared-ram.ts'
import type { VmSpec } from '../../protocols/group.ts'

const MIB = 1_048_576

/** RAM that can be tracked until `lose` is called; its descriptor, which nobody opens here, says how many were made. */
function host() {
  const lost = Promise.withResolvers<Error>()
  const warnings: string[] = []
  let [made, armed, closed] = [0, 0, 0]
  let arming: Error | undefined
  const ram = {
    lost: lost.promise,
    arm: async () => {
      if (arming) throw arming
      armed++
    },
    close: async () => void closed++
  } as unknown as SharedRam
  return {
    warnings,
    counts: () => ({ made, armed, closed }),
    lose: (why: string) => lost.resolve(new Error(why)),
    failToArm: (why: string) => (arming = new Error(why)),
    can: {
      makeRam: async (bytes: number) => {
        expect(bytes).toBe(64 * MIB)
        made++
        return ram
      },
      captureWhy: undefined,
      log: { debug() {}, info() {}, error() {}, warn: (_: unknown, text: string) => void warnings.push(text) }
    }
  }
}

function vm(capture?: VmSpec['capture']): VmSpec {
  return { id: 'vm1', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '', capture }
}

const HELD = { code: 'HYPERVISOR_CAPTURE' }

describe("a machine's RAM", () => {
  it('is tracked from when the VM can be cut, and portable before, which it says', async () => {
    const { can, counts } = host()
    const ram = new MachineRam(vm(), can)
    expect(await ram.make()).toBeDefined()
    expect(ram.tracking).toBeUndefined()
    expect(ram.capture).toMatchObject({ mode: 'portable', why: expect.stringContaining('not whole yet') })
    await ram.arm(7)
    expect(ram.tracking).toBeDefined()
    expect(ram.capture).toEqual({ mode: 'dirty' })
    await ram.close()
    expect(ram.tracking).toBeUndefined()
    expect(counts()).toEqual({ made: 1, armed: 1, closed: 1 })
  })

  it('is never shared where the VM is held to "portable"', async () => {
    const { can, counts } = host()
    const ram = new MachineRam(vm('portable'), can)
    expect(await ram.make()).toBeUndefined()
    await ram.arm(7)
    ram.requireMode()
    expect(ram.capture).toMatchObject({ mode: 'portable', why: expect.stringContaining('specification') })
    expect(counts()).toEqual({ made: 0, armed: 0, closed: 0 })
  })

  it('is not made on a host that cannot track, for a VM held to "dirty": it says why and what to do', async () => {
    const { can } = host()
    const portable = { ...can, makeRam: undefined, captureWhy: 'there is no C compiler' }
    await expect(new MachineRam(vm('dirty'), portable).make()).rejects.toMatchObject(HELD)
    await expect(new MachineRam(vm('dirty'), portable).make()).rejects.toThrow(/no C compiler\. Mend .*another host/)
    const free = new MachineRam(vm(), portable)
    expect(await free.make()).toBeUndefined()
    expect(free.capture).toEqual({ mode: 'portable', why: 'there is no C compiler' })
  })

  it('that cannot be made or armed now leaves the VM portable, or ends the start of one that is held to "dirty"', async () => {
    const full = { ...host().can, makeRam: () => Promise.reject(new Error('no room')) }
    const free = new MachineRam(vm(), full)
    expect(await free.make()).toBeUndefined()
    expect(free.capture).toEqual({ mode: 'portable', why: 'no room' })
    await expect(new MachineRam(vm('dirty'), full).make()).rejects.toMatchObject(HELD)

    const { can, failToArm } = host()
    failToArm('no pagemap')
    for (const capture of [undefined, 'dirty'] as const) {
      const ram = new MachineRam(vm(capture), can)
      await ram.make()
      if (capture === 'dirty') await expect(ram.arm(7)).rejects.toMatchObject(HELD)
      else await ram.arm(7)
      expect(ram.capture).toEqual({ mode: 'portable', why: 'no pagemap' })
    }
  })

  it('whose tracker dies is portable from then on; a VM held to "dirty" is cut no more', async () => {
    for (const capture of [undefined, 'dirty'] as const) {
      const { can, lose, warnings } = host()
      const ram = new MachineRam(vm(capture), can)
      await ram.make()
      await ram.arm(7)
      ram.requireMode()
      lose('it was killed')
      await Promise.resolve()
      expect(ram.tracking).toBeUndefined()
      expect(ram.capture).toEqual({ mode: 'portable', why: 'it was killed' })
      expect(warnings).toHaveLength(1)
      if (capture === 'dirty') expect(() => ram.requireMode()).toThrow(/it was killed/)
      else ram.requireMode()
    }
  })
})
