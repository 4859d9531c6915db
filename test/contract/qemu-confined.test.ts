/** What a QEMU may that a guest has taken over: seen in the kernel's own account of the process. */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, describe, expect, it } from 'vitest'
import { commonArguments } from '../../node/hypervisor/command-line.ts'
import { SANDBOX } from '../../node/hypervisor/confinement.ts'
import { buildNative } from '../../node/hypervisor/native.ts'
import { type QemuProcess, spawnQemu } from '../../node/hypervisor/process.ts'
import { installedQemu } from '../../node/hypervisor/qemu.ts'

const run = promisify(execFile)
const QEMU = 'qemu-system-x86_64'
const args = [...commonArguments('tcg', 'diapause:test:confined'), '-S', '-m', '16']

const started: QemuProcess[] = []
async function start(...options: Parameters<typeof spawnQemu>): Promise<(name: string) => Promise<string>> {
  const qemu = await spawnQemu(...options)
  started.push(qemu)
  const of = (name: string): Promise<string> => readFile(`/proc/${qemu.pid}/${name}`, 'latin1')
  // Until it is QEMU, and has given up what it gives up last.
  await expect.poll(async () => field(await of('status'), 'Seccomp'), { timeout: 20_000 }).not.toBe('0')
  return of
}

const field = (status: string, name: string): string => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)?.[1] ?? ''

afterEach(async () => {
  for (const qemu of started.splice(0)) {
    qemu.kill()
    await qemu.exited
  }
})

/** Files of others (in a container by the first), and a userfaultfd where not everybody gets one. */
const KEPT = (1n << 1n) | (1n << 2n) | (1n << 19n)

describe('a QEMU', () => {
  it('has a filter of system calls, and no capability but those that cuts and restores need', async () => {
    const of = await start(QEMU, args)
    const status = await of('status')
    expect(field(status, 'Seccomp')).toBe('2')
    expect(field(status, 'NoNewPrivs')).toBe('1')
    for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb'])
      expect(BigInt(`0x${field(status, set)}`) & ~KEPT).toBe(0n)
    const mayTakeAway = (BigInt(`0x${field(await readFile('/proc/self/status', 'latin1'), 'CapEff')}`) >> 8n) & 1n
    if (mayTakeAway === 1n) expect(BigInt(`0x${field(status, 'CapBnd')}`) & ~KEPT).toBe(0n)
  })

  it("has nothing of its peer's environment but where programs are", async () => {
    process.env['AWS_SECRET_ACCESS_KEY'] = 'of-the-second-home'
    try {
      const of = await start(QEMU, args)
      const names = (await of('environ')).split('\0').map(line => line.split('=')[0])
      expect(names.filter(name => !/^(PATH|LD_LIBRARY_PATH|QEMU_MODULE_DIR|)$/.test(name ?? ''))).toEqual([])
    } finally {
      delete process.env['AWS_SECRET_ACCESS_KEY']
    }
  })

  it('is of the user of its peer', async () => {
    const of = await start(QEMU, args)
    expect(field(await of('status'), 'Uid')).toBe(String(process.getuid?.()))
  })

  it('that was built without the filter runs without it', async () => {
    const old = join(import.meta.dirname, 'qemu-without-seccomp.sh')
    const { program } = await installedQemu({ qemu: old })
    expect(program).toEqual({ path: old, sandbox: false, confined: true })
    const { program: whole } = await installedQemu({ qemu: QEMU })
    expect(whole).toEqual({ path: QEMU, sandbox: true, confined: true })
    const qemu = await spawnQemu({ ...program, path: QEMU }, args)
    started.push(qemu)
    const words = async () => (await readFile(`/proc/${qemu.pid}/cmdline`, 'latin1')).split('\0')
    await expect.poll(async () => (await words())[0]).toBe(QEMU)
    expect(await words()).not.toContain(SANDBOX[0])
  })
})

it('a peer as a user of its own needs one capability to cut VMs by the pages that they write, and QEMU has no other', async () => {
  const child = join(import.meta.dirname, 'own-user-child.ts')
  const caps = '-all,+sys_ptrace'
  const nobody = ['--reuid', '65534', '--regid', '65534', '--clear-groups']
  // Of somebody else only where that user can read this checkout, and where we may become it.
  const other = await run('setpriv', [...nobody, 'test', '-r', child]).then(
    () => nobody,
    () => []
  )
  const flags = [...other, `--inh-caps=${caps}`, `--ambient-caps=${caps}`, `--bounding-set=${caps}`]
  const { stdout } = await run('setpriv', [...flags, process.execPath, child], { timeout: 60_000 })
  const told = JSON.parse(stdout) as { uid: number; effective: string; capture: string; captureWhy?: string }
  expect(told.captureWhy).toBeUndefined()
  expect(told).toMatchObject({ uid: other.length > 0 ? 65_534 : process.getuid?.(), capture: 'dirty' })
  expect(BigInt(`0x${told.effective}`) & ~(1n << 19n)).toBe(0n)
})

it('helpers in C are built in a folder of its own by a peer that may not write where it is installed', async () => {
  const own = await mkdtemp(join(tmpdir(), 'own-native-'))
  try {
    const cache = '/sys/diapause' // where nobody makes folders, not even root
    await expect(buildNative({ cache })).rejects.toMatchObject({ code: 'HYPERVISOR_NATIVE' })
    const built = await buildNative({ cache, own })
    expect(built.tracker.startsWith(own)).toBe(true)
    expect(await buildNative({ cache, own })).toEqual(built)
    await run(built.tracker, ['probe', '/dev/shm'])
  } finally {
    await rm(own, { recursive: true, force: true })
  }
})

it('a peer, and what it starts, leaves no core, to no file and to no program', async () => {
  const child = join(import.meta.dirname, 'core-dumps-child.ts')
  const { stdout } = await run('sh', ['-c', 'ulimit -S -c 0; exec "$0" "$1"', process.execPath, child])
  expect(JSON.parse(stdout)).toEqual({ own: '1 1', child: '1 1' })
})
