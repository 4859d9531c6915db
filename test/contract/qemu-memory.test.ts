/** Who gets at the memory of a VM, its helper and its peer: tried from a process that has what a QEMU has that was broken out of. */
import { execFile, spawn } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { commonArguments } from '../../node/hypervisor/command-line.ts'
import { privilegeFlags } from '../../node/hypervisor/confinement.ts'
import { buildNative, type NativeParts } from '../../node/hypervisor/native.ts'
import { ownPrivileges, spawnQemu } from '../../node/hypervisor/process.ts'
import { TrackerProcess } from '../../node/hypervisor/tracker.ts'
import { clock } from './real-clock.ts'

const run = promisify(execFile)
const NOTHING = { userfaultfd: false, othersFiles: false, tap: false }
/** Starts a program with what a QEMU has: our user, and no capability. */
const confined = (): string[] => privilegeFlags(ownPrivileges(), NOTHING, true)

/** Resolves where such a program can open the memory of process `pid`. */
const openMemory = (pid: number | undefined) =>
  run('setpriv', [...confined(), 'sh', '-c', 'exec 3<>"/proc/$0/mem"', `${pid}`])

const field = (status: string, name: string): string => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)?.[1] ?? ''
const file = (pid: number, name: string): Promise<string> => readFile(`/proc/${pid}/${name}`, 'latin1')

/** By their numbers on x86-64, the machine of these tests; whether they are refused. */
const CALLS: readonly (readonly [name: string, number: number, refused: boolean])[] = [
  ['getpid', 39, false],
  ['ptrace', 101, true],
  ['process_vm_writev', 311, true],
  ['open_by_handle_at', 304, true],
  ['execveat', 322, true],
  ['pidfd_getfd', 438, true],
  ['mount_setattr', 442, true],
  ['getpid of x32', 0x4000_0027, true]
]

let native: NativeParts
let folder: string
const ends: (() => unknown)[] = []
beforeEach(async () => {
  native = await buildNative()
  folder = await mkdtemp(join(tmpdir(), 'qemu-memory-'))
})
afterEach(async () => {
  for (const end of ends.splice(0)) await end()
  await rm(folder, { recursive: true })
})

describe('a guest that has broken out of its QEMU', () => {
  it('opens the memory of a process of its user that is as poor as it, which shows that this test can fail', async () => {
    const other = spawn('setpriv', [...confined(), 'sleep', '60'])
    ends.push(() => other.kill('SIGKILL'))
    await expect.poll(() => file(other.pid ?? 0, 'comm')).toBe('sleep\n')
    await openMemory(other.pid)
  })

  it('cannot open the memory of another VM', async () => {
    const program = { path: 'qemu-system-x86_64', sandbox: true, confined: true, preload: native.handoff }
    const qemu = await spawnQemu(program, [...commonArguments('tcg', 'diapause:test:memory'), '-S', '-m', '16'])
    ends.push(() => {
      qemu.kill()
      return qemu.exited
    })
    await expect.poll(async () => field(await file(qemu.pid, 'status'), 'Seccomp'), { timeout: 20_000 }).toBe('2')
    await expect(openMemory(qemu.pid)).rejects.toThrow(/mem: (Permission denied|Operation not permitted)/)
  })

  it('cannot open the memory of the helper that tracks a VM, which has no capability and nothing of its peer’s environment', async () => {
    const before = await childrenNamed('tracker')
    const tracker = await TrackerProcess.start(native.tracker, { socketPath: join(folder, 't.uffd'), pages: 1, clock })
    ends.push(() => tracker.end())
    const [pid = 0] = (await childrenNamed('tracker')).filter(each => !before.includes(each))
    const status = await file(pid, 'status')
    expect(field(status, 'CapPrm')).toBe('0000000000000000')
    expect(field(status, 'CapEff')).toBe('0000000000000000')
    expect(field(status, 'NoNewPrivs')).toBe('1')
    expect(await file(pid, 'environ')).toBe('')
    await expect(openMemory(pid)).rejects.toThrow(/mem: (Permission denied|Operation not permitted)/)
  })

  it('cannot open the memory of a peer that has a capability', async ({ skip }) => {
    skip(/^CapEff:\s*0+$/m.test(ownPrivileges().status), 'this process has none')
    await expect(openMemory(process.pid)).rejects.toThrow(/mem: (Permission denied|Operation not permitted)/)
  })

  it.each(CALLS)('asks the kernel for %s (%i): it is refused: %s', async (_, number, refused) => {
    const program = `$! = 0; syscall(${number}, -1, 0, 0, 0, 0, 0); print $! + 0`
    const words = [...confined(), 'env', `LD_PRELOAD=${native.handoff}`, 'perl', '-e', program]
    const { stdout } = await run('setpriv', words)
    expect(stdout === '1').toBe(refused)
  })
})

/** Of this process. */
async function childrenNamed(name: string): Promise<number[]> {
  const { stdout } = await run('ps', ['--ppid', `${process.pid}`, '-o', 'pid=,comm=']).catch(() => ({ stdout: '' }))
  const rows = stdout.split('\n').map(row => row.trim().split(/\s+/))
  return rows.filter(([, comm]) => comm === name).map(([pid]) => Number(pid))
}
