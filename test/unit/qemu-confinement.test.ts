import { spawnSync } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { checkPrivileges } from '../../node/doctor.ts'
import { plainEnvironment, privilegeFlags, type UserfaultfdFor } from '../../node/hypervisor/confinement.ts'
import { opensWithoutPrivilege } from '../../node/hypervisor/own-files.ts'
import { ownPrivileges } from '../../node/hypervisor/process.ts'

const status = (effective: string, ambient = '0000000000000000') =>
  `Name:\tnode\nCapInh:\t${ambient}\nCapPrm:\t${effective}\nCapEff:\t${effective}\nCapBnd:\tffff\nCapAmb:\t${ambient}\n`
const ROOT = '000001ffffffffff'
const SYS_PTRACE = '0000000000080000'

const GUEST = { userfaultfd: true, othersFiles: false, tap: false }
const FILES = { ...GUEST, othersFiles: true }
const everybody = (effective: string, ambient?: string) =>
  ({ status: status(effective, ambient), userfaultfd: 'everybody' }) as const
const tracing = (effective: string, ambient?: string) =>
  ({ status: status(effective, ambient), userfaultfd: 'who may trace' }) as const
const device = (effective: string) => ({ status: status(effective), userfaultfd: 'who opens the device' }) as const

describe('the privileges of QEMU', () => {
  it('are none, of those of root, where its files are root’s', () => {
    expect(privilegeFlags(everybody(ROOT), GUEST, true)).toEqual([
      '--no-new-privs',
      '--inh-caps=-all',
      '--ambient-caps=-all',
      '--bounding-set=-all'
    ])
  })

  it('are, of those of root, reading any file, where one that it opens is of somebody else', () => {
    expect(privilegeFlags(everybody(ROOT), FILES, true).at(-1)).toBe('--bounding-set=-all,+dac_read_search')
  })

  it('are, of those of root in a container, opening any file', () => {
    const container = '00000000a80c25fb' // what Docker gives, and SYS_PTRACE
    expect(privilegeFlags(tracing(container), FILES, true).at(-1)).toBe('--bounding-set=-all,+dac_override,+sys_ptrace')
  })

  it('are to trace processes too where the kernel gives a userfaultfd to nobody else', () => {
    expect(privilegeFlags(tracing(ROOT), GUEST, true).at(-1)).toBe('--bounding-set=-all,+sys_ptrace')
  })

  it('are not to trace processes where it takes a userfaultfd from the device, for which it needs the library', () => {
    expect(privilegeFlags(device(ROOT), GUEST, true).at(-1)).toBe('--bounding-set=-all')
    expect(privilegeFlags(device(ROOT), GUEST, false).at(-1)).toBe('--bounding-set=-all,+sys_ptrace')
  })

  it('are none where it runs no guest, but what a TAP device of another user takes, if its peer has that', () => {
    const none = { userfaultfd: false, othersFiles: false, tap: false }
    expect(privilegeFlags(tracing(ROOT), none, false).at(-1)).toBe('--bounding-set=-all')
    expect(privilegeFlags(tracing(ROOT), { ...none, tap: true }, false).at(-1)).toBe('--bounding-set=-all,+net_admin')
    expect(privilegeFlags(tracing(SYS_PTRACE, SYS_PTRACE), { ...none, tap: true }, false).join()).not.toContain('+')
  })

  it('are none of a user that has none, and only root’s helpers can lower what programs may ever get', () => {
    expect(privilegeFlags(tracing('0000000000000000'), GUEST, true)).toEqual([
      '--no-new-privs',
      '--inh-caps=-all',
      '--ambient-caps=-all'
    ])
  })

  it('are, of a user to whom systemd gave some, those that it hands on and QEMU needs', () => {
    const both = '0000000000081000'
    expect(privilegeFlags(tracing(both, both), GUEST, true)).toEqual([
      '--no-new-privs',
      '--inh-caps=-all,+sys_ptrace',
      '--ambient-caps=-all,+sys_ptrace'
    ])
  })

  it('leave it all the same the files that its user may write, which for root are those of root, and no others', () => {
    const folder = mkdtempSync(join(tmpdir(), 'left-'))
    const none = { userfaultfd: false, othersFiles: false, tap: false }
    const flags = privilegeFlags(ownPrivileges(), none, true)
    const writes = (path: string) =>
      spawnSync('setpriv', [...flags, 'sh', '-c', 'grep ^CapEff /proc/self/status; echo taken >> "$0"', path], {
        encoding: 'utf8'
      })
    try {
      const [own, theirs] = [join(folder, 'own'), join(folder, 'theirs')]
      for (const each of [own, theirs]) writeFileSync(each, '', { mode: each === own ? 0o644 : 0o444 })
      if (process.getuid?.() === 0) chownSync(theirs, 65_534, 65_534)
      expect(writes(own)).toMatchObject({ status: 0, stdout: expect.stringMatching(/\t0+\n$/) })
      expect(readFileSync(own, 'utf8')).toBe('taken\n')
      expect(writes(theirs).status).not.toBe(0)
      expect(readFileSync(theirs, 'utf8')).toBe('')
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  it('are none where the kernel does not say what there are', () => {
    expect(privilegeFlags({ status: '', userfaultfd: 'everybody' }, FILES, true)).toHaveLength(3)
  })
})

describe('doctor', () => {
  const container = 'a80c24fb' // what Docker gives, and SYS_PTRACE, without SETPCAP
  const of = (uid: number, effective: string, userfaultfd: UserfaultfdFor = 'everybody') => ({
    status: `Uid:\t${uid}\t${uid}\t${uid}\t${uid}\nCapEff:\t${effective}\nCapBnd:\t${effective}\n`,
    userfaultfd
  })

  it('says that root without CAP_SETPCAP leaves its QEMUs capabilities that they do not need', () => {
    expect(checkPrivileges({}, true, of(0, container))).toMatchObject({
      state: 'worse',
      says: expect.stringMatching(/^QEMU keeps 13 of root's/),
      fix: expect.stringContaining('SETPCAP')
    })
  })

  it('says that a QEMU that has to trace for its userfaultfd can write the memory of all, and what to do about it', () => {
    const found = { state: 'worse', says: expect.stringContaining('CAP_SYS_PTRACE') }
    const fix = expect.stringContaining('vm.unprivileged_userfaultfd=1')
    expect(checkPrivileges({}, true, of(1_000, '80000', 'who may trace'))).toMatchObject({ ...found, fix })
    expect(checkPrivileges({}, false, of(1_000, '80000', 'who opens the device'))).toMatchObject({ ...found, fix })
    expect(checkPrivileges({}, true, of(1_000, '80000', 'who opens the device'))).toMatchObject({ state: 'good' })
    expect(checkPrivileges({}, true, of(1_000, '0', 'who may trace'))).toMatchObject({ state: 'good' })
    const both = checkPrivileges({}, true, of(0, container, 'who may trace'))
    expect(both.says).toMatch(/CAP_SYS_PTRACE.*; QEMU keeps 12 of/)
    expect(both.fix).toMatch(/userfaultfd.*SETPCAP/)
  })

  it('finds nothing of the kind with it, of another user, and of a root who has only what QEMU needs', () => {
    expect(checkPrivileges({}, true, of(0, 'a80c25fb'))).toMatchObject({ state: 'good' })
    expect(checkPrivileges({}, true, of(1_000, container))).toMatchObject({ state: 'good' })
    expect(checkPrivileges({}, true, of(0, '2'))).toMatchObject({ state: 'good' })
    expect(checkPrivileges({ confined: false }, true, of(0, container)).says).toContain('hypervisor.confined')
  })
})

describe('a file', () => {
  let folder: string
  const file = (name: string, mode: number, uid = 0) => {
    const path = join(folder, name)
    writeFileSync(path, '')
    chmodSync(path, mode)
    if (uid !== 0) chownSync(path, uid, uid)
    return path
  }
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'own-files-'))
    chmodSync(folder, 0o755)
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  it('is opened without privilege where its mode and those of the folders above let this user', () => {
    expect(opensWithoutPrivilege(file('own', 0o400))).toBe(true)
    expect(opensWithoutPrivilege(join(folder, 'not/there/yet'))).toBe(true)
    expect(opensWithoutPrivilege(file('closed', 0o000))).toBe(false)
    chmodSync(folder, 0o600)
    expect(opensWithoutPrivilege(join(folder, 'own'))).toBe(false)
  })

  it.runIf(process.getuid?.() === 0)('of somebody else is not, nor a link to one, unless all may read it', () => {
    const closed = file('theirs', 0o600, 65_534)
    symlinkSync(closed, join(folder, 'link'))
    expect(opensWithoutPrivilege(closed)).toBe(false)
    expect(opensWithoutPrivilege(join(folder, 'link'))).toBe(false)
    expect(opensWithoutPrivilege(file('open', 0o604, 65_534))).toBe(true)
    const home = join(folder, 'home')
    mkdirSync(home)
    writeFileSync(join(home, 'kernel'), '')
    chmodSync(home, 0o700)
    expect(opensWithoutPrivilege(join(home, 'kernel'))).toBe(true)
    chownSync(home, 65_534, 65_534)
    expect(opensWithoutPrivilege(join(home, 'kernel'))).toBe(false)
    symlinkSync(join(home, 'kernel'), join(folder, 'into'))
    expect(opensWithoutPrivilege(join(folder, 'into'))).toBe(false)
  })
})

it('of a peer’s environment QEMU has what it needs to start', () => {
  const own = { PATH: '/bin', LD_LIBRARY_PATH: '/opt/qemu/lib', AWS_SECRET_ACCESS_KEY: 's', LD_PRELOAD: 'x', HOME: '/' }
  expect(plainEnvironment(own)).toEqual({ PATH: '/bin', LD_LIBRARY_PATH: '/opt/qemu/lib' })
  expect(plainEnvironment({})).toEqual({})
})
