/**
 * Builds the test guest from Debian packages: the cloud kernel, busybox and the workloads. Nothing is installed: packages are
 * downloaded and unpacked, so no root is needed (but for `apt-get update` where apt knows no packages yet).
 *
 * The result stays in `.build/guest/KEY/` at the top of the tree. KEY begins with a hash of everything in this folder
 * that goes into the guest, so a changed source is a new guest. It is built in a directory of its own and renamed into
 * place: of two builders at the same time the later finds the name taken and uses the other's.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { DiapauseError, hasCode, messageOf, UsageError } from '../../node/errors.ts'
import type { VmSpec } from '../../protocols/group.ts'
import { type ArchiveFile, cpioArchive, kernelElf, unsigned } from './archive.ts'

const here = import.meta.dirname
const run = promisify(execFile)

/** In load order; see init.c. */
const modules = [
  'drivers/virtio/virtio_ring',
  'drivers/virtio/virtio',
  'drivers/virtio/virtio_pci_modern_dev',
  'drivers/virtio/virtio_pci_legacy_dev',
  'drivers/virtio/virtio_pci',
  'net/core/failover',
  'drivers/net/net_failover',
  'drivers/net/virtio_net',
  'drivers/block/virtio_blk'
]

/** Each a C file here and a program in the guest; `run=NAME` on the kernel's command line says which one it becomes. */
const workloads = ['bank', 'speed', 'load', 'counter']

/** Files of a built guest, both readable by QEMU's -kernel and -initrd. */
export interface Guest {
  readonly kernel: string
  readonly initrd: string
}

export interface BuildOptions {
  /** Where built guests are kept. Default: `.build/guest` at the top of the tree. */
  readonly dir?: string
  /** Called with what is being done now, e.g. "downloading linux-image-6.1.0-56-cloud-amd64". */
  readonly progress?: (step: string) => void
}

/**
 * The guest, from the cache or built now (about 10 s, most of it the download of a 27 MB package). Rejects with a
 * UsageError that holds the command to run: GUEST_TOOLS (gcc or dpkg is missing), GUEST_PACKAGES (apt has no lists).
 */
export async function buildGuest(options: BuildOptions = {}): Promise<Guest> {
  const dir = options.dir ?? join(here, '../../.build/guest')
  const progress = options.progress ?? (() => {})
  const sources = await sourcesHash()
  await mkdir(dir, { recursive: true })
  const ready = (await readdir(dir)).find(name => name.startsWith(`${sources}-`))
  if (ready !== undefined) return guestIn(join(dir, ready))

  const temporary = await mkdtemp(join(dir, 'building-'))
  try {
    const version = await unpackPackages(temporary, progress)
    progress('compiling the workloads')
    for (const name of ['init', ...workloads])
      await tool('gcc', ['-O2', '-static', '-s', '-o', join(temporary, name), join(here, `${name}.c`)], temporary)
    progress('packing kernel and initramfs')
    const image = await readFile(join(temporary, 'root/boot', `vmlinuz-${version}`))
    const result = await mkdtemp(join(temporary, 'guest-'))
    await writeFile(join(result, 'kernel'), kernelElf(image) ?? image)
    await writeFile(join(result, 'initrd'), cpioArchive(await initramfs(temporary, version)))
    const final = join(dir, `${sources}-${version}`)
    await rename(result, final).catch((error: unknown) => {
      if (!hasCode(error, 'ENOTEMPTY') && !hasCode(error, 'EEXIST')) throw error
    })
    return guestIn(final)
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
}

const guestIn = (dir: string): Guest => ({ kernel: join(dir, 'kernel'), initrd: join(dir, 'initrd') })

async function sourcesHash(): Promise<string> {
  const hash = createHash('sha256')
  const programs = ['init', ...workloads].map(name => `${name}.c`)
  const names = [...programs, 'guest.h', 'build.ts', 'archive.ts']
  for (const name of names) hash.update(await readFile(join(here, name)))
  return hash.digest('hex').slice(0, 16)
}

/** Unpacks kernel and busybox into `dir`/root; the kernel's version. */
async function unpackPackages(dir: string, progress: (step: string) => void): Promise<string> {
  let image = await kernelPackage(dir)
  if (image === undefined) {
    const command = 'apt-get update'
    if (process.getuid?.() !== 0)
      throw new UsageError('GUEST_PACKAGES', `apt knows no package of the guest's kernel yet: run  sudo ${command}`)
    progress(command)
    await tool('apt-get', ['update', '-q'], dir)
    image = await kernelPackage(dir)
    if (image === undefined)
      throw new UsageError(
        'GUEST_PACKAGES',
        'apt has no package linux-image-cloud-amd64: the guest is made from Debian packages, so put a Debian mirror into /etc/apt/sources.list'
      )
  }
  progress(`downloading ${image} and busybox-static`)
  await tool('apt-get', ['download', '-q', image, 'busybox-static'], dir)
  for (const file of await readdir(dir)) if (file.endsWith('.deb')) await tool('dpkg', ['-x', file, 'root'], dir)
  return image.slice('linux-image-'.length)
}

/** The package that linux-image-cloud-amd64 stands for now; undefined where apt does not know. */
async function kernelPackage(dir: string): Promise<string | undefined> {
  const text = await tool('apt-cache', ['depends', 'linux-image-cloud-amd64'], dir).catch((error: unknown) => {
    if (hasCode(error, 'GUEST_COMMAND')) return ''
    throw error
  })
  return /Depends: (linux-image-[\w.+-]+)/.exec(text)?.[1]
}

async function initramfs(dir: string, version: string): Promise<ArchiveFile[]> {
  const directory = (path: string) => ({ path, mode: 0o040755, data: new Uint8Array() })
  const file = async (path: string, source: string) => ({ path, mode: 0o100755, data: await readFile(source) })
  const driver = async (path: string, source: string) => ({
    path,
    mode: 0o100644,
    data: unsigned(await readFile(source))
  })
  const names = modules.map(module => module.slice(module.lastIndexOf('/') + 1))
  const kernel = join(dir, 'root/lib/modules', version, 'kernel')
  return [
    ...['bin', 'dev', 'mod', 'proc'].map(directory),
    await file('init', join(dir, 'init')),
    await file('bin/busybox', join(dir, 'root/bin/busybox')),
    ...(await Promise.all(workloads.map(name => file(`bin/${name}`, join(dir, name))))),
    { path: 'modules', mode: 0o100644, data: Buffer.from(`${names.join('\n')}\n`) },
    ...(await Promise.all(modules.map((module, i) => driver(`mod/${names[i]}.ko`, join(kernel, `${module}.ko`)))))
  ]
}

async function tool(command: string, args: string[], cwd: string): Promise<string> {
  try {
    return (await run(command, args, { cwd, maxBuffer: 1 << 24, env: { ...process.env, LC_ALL: 'C' } })).stdout
  } catch (error) {
    if (hasCode(error, 'ENOENT') && existsSync(cwd))
      throw new UsageError(
        'GUEST_TOOLS',
        `${command} is missing, which builds the test guest on Debian: run  sudo apt-get install -y gcc libc6-dev dpkg apt`,
        { cause: error }
      )
    throw new DiapauseError(
      'GUEST_COMMAND',
      `building the guest failed at: ${command} ${args.join(' ')}\n${messageOf(error)}`,
      {
        cause: error
      }
    )
  }
}

// ---------------------------------------------------------------------------------------------- what a VM is told

export interface BankOptions {
  /** 1 to total; the VM's address is 10.9.0.INDEX. */
  readonly index: number
  /** VMs of the bank, at most 64. */
  readonly total: number
  /** Accounts in each VM and what each holds at first. */
  readonly accounts?: number
  readonly money?: number
  /** Microseconds between two transfers, or two bursts of them, on a connection. */
  readonly intervalUs?: number
  /** Transfers on a connection that are sent in one piece: 40 bytes each, in as many frames as the MTU makes of it. */
  readonly burst?: number
  /** Pages written at random, a second, in `dirtyMiB` of memory. */
  readonly dirtyPagesPerSecond?: number
  readonly dirtyMiB?: number
  /** Blocks of its first disk, at random, by turns written and read past the page cache, a second. */
  readonly diskBlocksPerSecond?: number
  readonly mtu?: number
  /** So often it says a number by its second NIC, to everybody. */
  readonly beatMs?: number
  /** What runs in it instead of the bank. */
  readonly run?: 'speed' | 'load' | 'counter'
  /** Memory that `run: 'load'` fills at its start. */
  readonly fillMiB?: number
}

/** Money of all VMs together, always. */
export const bankTotal = (options: Omit<BankOptions, 'index'>): number =>
  options.total * (options.accounts ?? 64) * (options.money ?? 1000)

/** 52:54:00:d1:HI:LO, so that every VM of a bank has its own. */
export const bankMac = (index: number): string =>
  `52:54:00:d1:${(index >> 8).toString(16).padStart(2, '0')}:${(index & 255).toString(16).padStart(2, '0')}`

/**
 * The kernel command line. Beside the bank's settings: a clock whose rate is known and not measured (tsc=unstable: the HPET
 * under TCG, kvm-clock under KVM). Linux measures the TSC against the PIT while it boots, and where the host was busy then,
 * believes in a quarter of its rate: such a VM's clock ran four to six times too fast for all its life, and a silence of 4 s
 * was one of 25 s to it. And what made the boot shorter under TCG (5.3 s to 3.3 s together with the uncompressed kernel; two
 * busy cores): no self-tests of ciphers, no security modules, no kprobe and certificate initialisation.
 */
export function bankAppend(options: BankOptions): string {
  return [
    'console=ttyS0 quiet loglevel=1 panic=-1',
    'tsc=unstable no_timer_check nokaslr mitigations=off audit=0 nowatchdog ipv6.disable=1 8250.nr_uarts=1',
    'cryptomgr.notests lsm=capability initcall_blacklist=init_kprobe_trace,load_system_certificate_list,crypto_kdf108_init',
    `ip=10.9.0.${options.index} mtu=${options.mtu ?? 1500} vm=${options.index} vms=${options.total}`,
    `accounts=${options.accounts ?? 64} money=${options.money ?? 1000} intervalUs=${options.intervalUs ?? 20_000}`,
    `burst=${options.burst ?? 1}`,
    `dirty=${options.dirtyPagesPerSecond ?? 0} dirtyMiB=${options.dirtyMiB ?? 16} run=${options.run ?? 'bank'}`,
    ...(options.diskBlocksPerSecond === undefined ? [] : [`disk=${options.diskBlocksPerSecond}`]),
    ...(options.beatMs === undefined ? [] : [`beatMs=${options.beatMs}`]),
    ...(options.fillMiB === undefined ? [] : [`fillMiB=${options.fillMiB}`])
  ].join(' ')
}

/** The whole specification of VM `index` of a bank; its id is `vm1`, `vm2`, … */
export function bankVm(guest: Guest, options: BankOptions & { readonly memoryMiB: number }): VmSpec {
  const { index, memoryMiB } = options
  return { id: `vm${index}`, mac: bankMac(index), memoryMiB, ...guest, append: bankAppend(options) }
}
