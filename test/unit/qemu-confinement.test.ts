import { describe, expect, it } from 'vitest'
import { checkPrivileges } from '../../node/doctor.ts'
import { plainEnvironment, privilegeFlags } from '../../node/hypervisor/confinement.ts'

const status = (effective: string, ambient = '0000000000000000') =>
  `Name:\tnode\nCapInh:\t${ambient}\nCapPrm:\t${effective}\nCapEff:\t${effective}\nCapBnd:\tffff\nCapAmb:\t${ambient}\n`
const ROOT = '000001ffffffffff'
const SYS_PTRACE = '0000000000080000'

describe('the privileges of QEMU', () => {
  it('are, of those of root, reading any file', () => {
    expect(privilegeFlags({ status: status(ROOT), userfaultfdForAll: true })).toEqual([
      '--no-new-privs',
      '--inh-caps=-all',
      '--ambient-caps=-all',
      '--bounding-set=-all,+dac_read_search'
    ])
  })

  it('are, of those of root in a container, opening any file', () => {
    const container = '00000000a80c25fb' // what Docker gives, and SYS_PTRACE
    expect(privilegeFlags({ status: status(container), userfaultfdForAll: false }).at(-1)).toBe(
      '--bounding-set=-all,+dac_override,+sys_ptrace'
    )
  })

  it('are to trace processes too where the kernel gives a userfaultfd to nobody else', () => {
    expect(privilegeFlags({ status: status(ROOT), userfaultfdForAll: false }).at(-1)).toBe(
      '--bounding-set=-all,+dac_read_search,+sys_ptrace'
    )
  })

  it('are what it needs besides, if its peer has it', () => {
    const needs = ['net_admin'] as const
    expect(privilegeFlags({ status: status(ROOT), userfaultfdForAll: true, needs }).at(-1)).toMatch(/,\+net_admin$/)
    expect(privilegeFlags({ status: status(SYS_PTRACE, SYS_PTRACE), userfaultfdForAll: true, needs })).not.toContain(
      '+net_admin'
    )
  })

  it('are none of a user that has none, and only root’s helpers can lower what programs may ever get', () => {
    expect(privilegeFlags({ status: status('0000000000000000'), userfaultfdForAll: false })).toEqual([
      '--no-new-privs',
      '--inh-caps=-all',
      '--ambient-caps=-all'
    ])
  })

  it('are, of a user to whom systemd gave some, those that it hands on and QEMU needs', () => {
    const both = '0000000000081000'
    expect(privilegeFlags({ status: status(both, both), userfaultfdForAll: false })).toEqual([
      '--no-new-privs',
      '--inh-caps=-all,+sys_ptrace',
      '--ambient-caps=-all,+sys_ptrace'
    ])
  })

  it('are none where the kernel does not say what there are', () => {
    expect(privilegeFlags({ status: '', userfaultfdForAll: true })).toHaveLength(3)
  })
})

describe('doctor', () => {
  const container = 'a80c24fb' // what Docker gives, and SYS_PTRACE, without SETPCAP
  const of = (uid: number, effective: string) => ({
    status: `Uid:\t${uid}\t${uid}\t${uid}\t${uid}\nCapEff:\t${effective}\nCapBnd:\t${effective}\n`,
    userfaultfdForAll: false
  })

  it('says that root without CAP_SETPCAP leaves its QEMUs capabilities that they do not need', () => {
    expect(checkPrivileges({}, of(0, container))).toMatchObject({
      state: 'worse',
      says: expect.stringMatching(/^QEMU keeps 12 of root's/),
      fix: expect.stringContaining('SETPCAP')
    })
  })

  it('finds nothing of the kind with it, of another user, and of a root who has only what QEMU needs', () => {
    expect(checkPrivileges({}, of(0, 'a80c25fb'))).toMatchObject({ state: 'good' })
    expect(checkPrivileges({}, of(1_000, container))).toMatchObject({ state: 'good' })
    expect(checkPrivileges({}, of(0, '80002'))).toMatchObject({ state: 'good' })
    expect(checkPrivileges({ confined: false }, of(0, container)).says).toContain('hypervisor.confined')
  })
})

it('of a peer’s environment QEMU has what it needs to start', () => {
  const own = { PATH: '/bin', LD_LIBRARY_PATH: '/opt/qemu/lib', AWS_SECRET_ACCESS_KEY: 's', LD_PRELOAD: 'x', HOME: '/' }
  expect(plainEnvironment(own)).toEqual({ PATH: '/bin', LD_LIBRARY_PATH: '/opt/qemu/lib' })
  expect(plainEnvironment({})).toEqual({})
})
