/** What a QEMU may that a guest has taken over: seen in the kernel's own account of the process. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chown, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, describe, expect, it } from 'vitest'
import { commonArguments } from '../../node/hypervisor/command-line.ts'
import { type QemuProgram, readsOthersFiles, SANDBOX } from '../../node/hypervisor/confinement.ts'
import { buildNative } from '../../node/hypervisor/native.ts'
import { ownPrivileges, type QemuProcess, spawnQemu } from '../../node/hypervisor/process.ts'
import { installedQemu, preloaded } from '../../node/hypervisor/qemu.ts'
import { relayArguments } from '../../node/hypervisor/uplink-relay.ts'

const run = promisify(execFile)
const QEMU = 'qemu-system-x86_64'
const args = [...commonArguments('tcg', 'diapause:test:confined'), '-S', '-m', '16']

const SYS_PTRACE = 1n << 19n
/** Opening those of others, and reading them. */
const FILES = (1n << 1n) | (1n << 2n)

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

/** A QEMU as a peer has it: with the library that is loaded into it. */
async function whole(): Promise<QemuProgram> {
  return { ...(await installedQemu({ qemu: QEMU })).program, preload: await preloaded(QEMU, undefined) }
}

/** That a process has no capability, and never gets one, but those of the set. */
function expectOnly(kept: bigint, status: string, own: string): void {
  expect(field(status, 'NoNewPrivs')).toBe('1')
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb']) expect(BigInt(`0x${field(status, set)}`) & ~kept).toBe(0n)
  const mayTakeAway = (BigInt(`0x${field(own, 'CapEff')}`) >> 8n) & 1n
  if (mayTakeAway === 1n) expect(BigInt(`0x${field(status, 'CapBnd')}`) & ~kept).toBe(0n)
}

describe('a QEMU', () => {
  it('has filters of system calls, and no capability but to trace, where that alone gives it a userfaultfd', async () => {
    const status = await (await start(await whole(), args))('status')
    expect(field(status, 'Seccomp')).toBe('2')
    expect(field(status, 'Seccomp_filters')).toBe('2') // its own, and the library's
    const own = ownPrivileges()
    expectOnly(own.userfaultfd === 'who may trace' ? SYS_PTRACE : 0n, status, own.status)
  })

  it('reads files of others only where it has some to open', async () => {
    const own = ownPrivileges()
    const folder = await mkdtemp(join(tmpdir(), 'others-'))
    try {
      await chown(folder, process.getuid?.() === 0 ? 65_534 : (process.getuid?.() ?? 0), 65_534)
      const theirs = await start(await whole(), args, undefined, { files: [join(folder, 'kernel')] })
      const effective = BigInt(`0x${field(await theirs('status'), 'CapEff')}`)
      expect((effective & FILES) !== 0n).toBe(readsOthersFiles(own))
    } finally {
      await rm(folder, { recursive: true })
    }
  })

  it('that runs no guest, as the way of VMs to the outside, has no capability at all', async () => {
    const socketPath = join(tmpdir(), 'nobody-listens')
    const relay = relayArguments({ peer: 'test', kind: 'user', socketPath })
    const inside = relay.indexOf(relay.find(word => word.includes('id=inside,')) ?? '') - 1
    relay.splice(inside, 2) // it ends where the switch does not listen
    relay.splice(relay.indexOf('hubport,id=inside-port,hubid=0,netdev=inside') - 1, 2)
    const of = await start(await whole(), [...relay, '-S'], undefined, { guest: false })
    expectOnly(0n, await of('status'), ownPrivileges().status)
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
    const { program: sandboxed } = await installedQemu({ qemu: QEMU })
    expect(sandboxed).toEqual({ path: QEMU, sandbox: true, confined: true })
    const qemu = await spawnQemu({ ...program, path: QEMU }, args)
    started.push(qemu)
    const words = async () => (await readFile(`/proc/${qemu.pid}/cmdline`, 'latin1')).split('\0')
    await expect.poll(async () => (await words())[0]).toBe(QEMU)
    expect(await words()).not.toContain(SANDBOX[0])
  })
})

describe('a peer as a user of its own', () => {
  const child = join(import.meta.dirname, 'own-user-child.ts')
  const nobody = ['--reuid', '65534', '--regid', '65534', '--clear-groups']
  const told = async (words: readonly string[]) => {
    const [program = '', ...rest] = words
    const { stdout } = await run(program, [...rest, process.execPath, child], { timeout: 60_000 })
    return JSON.parse(stdout) as { uid: number; effective: string; capture: string; captureWhy?: string }
  }
  const having = (caps: string, user: readonly string[]) =>
    ['setpriv', user, `--inh-caps=${caps}`, `--ambient-caps=${caps}`, `--bounding-set=${caps}`].flat()

  it('needs one capability to cut VMs by the pages that they write, and QEMU has no other', async () => {
    // Of somebody else only where that user can read this checkout, and where we may become it.
    const other = await run('setpriv', [...nobody, 'test', '-r', child]).then(
      () => nobody,
      () => []
    )
    const found = await told(having('-all,+sys_ptrace', other))
    expect(found.captureWhy).toBeUndefined()
    expect(found).toMatchObject({ uid: other.length > 0 ? 65_534 : process.getuid?.(), capture: 'dirty' })
    expect(BigInt(`0x${found.effective}`) & ~SYS_PTRACE).toBe(0n)
  })

  it('needs none where it may open the device, nor has its QEMU one', async ({ skip }) => {
    const hasDevice = process.getuid?.() === 0 && ownPrivileges().userfaultfd === 'who opens the device'
    skip(!hasDevice, 'only root can give it away, on Linux 6.1 and with vm.unprivileged_userfaultfd = 0')
    // A device of its own, over the host's for this process alone.
    const folder = await mkdtemp(join(tmpdir(), 'device-'))
    const mine = 'mount -t tmpfs none $0; cp -a /dev/userfaultfd $0/u; chown 65534 $0/u'
    const script = `${mine}; mount --bind $0/u /dev/userfaultfd; exec "$@"`
    try {
      const found = await told(['unshare', '--mount', 'sh', '-ec', script, folder, ...having('-all', nobody)])
      expect(found).toEqual({ uid: 65_534, capture: 'dirty', effective: '0000000000000000' })
    } finally {
      await rm(folder, { recursive: true })
    }
  })
})

it('a QEMU that is linked statically is known to take no library', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'static-'))
  try {
    const [source, program] = [join(folder, 'qemu.c'), join(folder, 'qemu')]
    await writeFile(source, 'int puts(const char *); int main() { return puts("QEMU emulator version 7.2.0") < 0; }')
    await run('cc', [source, '-o', program])
    expect(await preloaded(program, undefined)).toBe((await buildNative()).handoff)
    await run('cc', ['-static', source, '-o', program])
    expect(await preloaded(program, undefined)).toBeUndefined()
  } finally {
    await rm(folder, { recursive: true })
  }
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

/** Which waits for what it is to read, and so can be looked at. */
it.each([
  ['join', ['join', '-', '--name', 'elm', '--data-dir', 'elm']],
  ['home restore', ['home', 'restore', '--recovery-key-file', 'FIFO', '--socket', 'none']]
])('diapause %s, which holds keys, leaves no core', async (_, words) => {
  const folder = await mkdtemp(join(tmpdir(), 'no-core-'))
  await run('mkfifo', ['-m', '600', join(folder, 'FIFO')])
  const main = join(import.meta.dirname, '../../node/main.ts')
  const cli = spawn(process.execPath, [main, ...words], { cwd: folder, stdio: ['pipe', 'ignore', 'ignore'] })
  const closed = once(cli, 'close')
  try {
    const limit = async (): Promise<string | undefined> =>
      /^Max core file size\s+(\S+\s+\S+)/m.exec(await readFile(`/proc/${cli.pid}/limits`, 'utf8'))?.[1]
    await expect.poll(limit, { timeout: 20_000 }).toMatch(/^1\s+1$/)
  } finally {
    cli.kill('SIGKILL')
    await closed
    await rm(folder, { recursive: true })
  }
})

it('a peer, and what it starts, leaves no core, to no file and to no program', async () => {
  const child = join(import.meta.dirname, 'core-dumps-child.ts')
  const { stdout } = await run('sh', ['-c', 'ulimit -S -c 0; exec "$0" "$1"', process.execPath, child])
  expect(JSON.parse(stdout)).toEqual({ own: '1 1', child: '1 1' })
})
