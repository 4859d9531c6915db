/**
 * The test guest with Debian's qemu-guest-agent in it instead of a workload: an archive of that behind the test guest's own, for
 * a kernel unpacks all that its initrd holds, one over the other. Made once, as `build.ts` makes the guest, and kept beside it.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { copyFile, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'
import { DiapauseError, hasCode, messageOf } from '../../node/errors.ts'
import { type ArchiveFile, cpioArchive } from './archive.ts'
import { buildGuest, type Guest } from './build.ts'

const here = import.meta.dirname
const run = promisify(execFile)
const LOADER = 'lib64/ld-linux-x86-64.so.2'
const AGENT = 'usr/sbin/qemu-ga'

/** What the guest says of its clocks: whole seconds, but CLOCK_MONOTONIC. `told`: what was written to /run/told. */
export interface GuestClocks {
  readonly cmos: number
  readonly real: number
  readonly monotonic: number
  readonly told: string
}

/** As `buildGuest`, after it; downloads some 40 MB of packages the first time. GUEST_COMMAND. */
export async function buildAgentGuest(): Promise<Guest> {
  const base = await buildGuest()
  const version = basename(dirname(base.kernel)).replace(/^[0-9a-f]+-/, '')
  const hash = createHash('sha256').update(basename(dirname(base.kernel)))
  for (const name of ['agent.ts', 'agent.sh']) hash.update(await readFile(join(here, name)))
  const final = join(dirname(base.kernel), `../agent-${hash.digest('hex').slice(0, 16)}`)
  const built = { kernel: join(final, 'kernel'), initrd: join(final, 'initrd') }
  if (existsSync(final)) return built
  const temporary = await mkdtemp(join(dirname(base.kernel), '../building-'))
  try {
    const root = await unpack(temporary, version)
    const module = join(root, 'lib/modules', version, 'kernel/drivers/char/virtio_console.ko')
    const more = cpioArchive(await filesOf(root, module))
    const result = await mkdtemp(join(temporary, 'guest-'))
    await copyFile(base.kernel, join(result, 'kernel'))
    await writeFile(join(result, 'initrd'), Buffer.concat([await readFile(base.initrd), more]))
    await rename(result, final).catch((error: unknown) => {
      if (!hasCode(error, 'ENOTEMPTY') && !hasCode(error, 'EEXIST')) throw error
    })
    return built
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
}

/** What it has said, in its order. */
export function guestClocks(console: string): GuestClocks[] {
  const said = console.matchAll(/CLOCKS cmos=(\d+) real=(\d+) monotonic=([\d.]+) port=\S* told=(.*)\.\r?\n/g)
  return [...said].map(([, cmos, real, monotonic, told = '']) => ({
    cmos: Number(cmos),
    real: Number(real),
    monotonic: Number(monotonic),
    told
  }))
}

/** The agent, its libraries (two levels of what they depend on) and the kernel's modules. */
async function unpack(dir: string, version: string): Promise<string> {
  const names = new Set(['qemu-guest-agent'])
  for (let level = 0; level < 2; level++) {
    const said = await tool('apt-cache', ['depends', '--important', ...names], dir)
    for (const [, name = ''] of said.matchAll(/^ {2}Depends: ([\w.+-]+)$/gm)) names.add(name)
  }
  await tool('apt-get', ['download', '-q', `linux-image-${version}`, ...names], dir)
  for (const file of await readdir(dir)) if (file.endsWith('.deb')) await tool('dpkg', ['-x', file, 'root'], dir)
  return join(dir, 'root')
}

async function filesOf(root: string, module: string): Promise<ArchiveFile[]> {
  const folders = ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu'].map(path => join(root, path)).join(':')
  const listed = await tool(join(root, LOADER), ['--library-path', folders, '--list', join(root, AGENT)], root)
  const libraries = [...listed.matchAll(/=> (\/\S+)/g)].map(([, path = '']) => path)
  const programs = [LOADER, AGENT, ...libraries.map(path => relative(root, path))]
  const parents = new Set(['sys', 'run', ...programs.flatMap(above)])
  const file = async (path: string, source: string) => ({ path, mode: 0o100755, data: await readFile(source) })
  return [
    ...[...parents].map(path => ({ path, mode: 0o040755, data: new Uint8Array() })),
    await file('init', join(here, 'agent.sh')),
    await file('mod/virtio_console.ko', module),
    { path: 'bin/date', mode: 0o120777, data: Buffer.from('busybox') },
    ...(await Promise.all(programs.map(path => file(path, join(root, path)))))
  ]
}

/** Folders of a path, the topmost first. */
const above = (path: string): string[] =>
  path.split('/').flatMap((_, count, names) => (count === 0 ? [] : [names.slice(0, count).join('/')]))

async function tool(command: string, args: string[], cwd: string): Promise<string> {
  try {
    return (await run(command, args, { cwd, maxBuffer: 1 << 24, env: { ...process.env, LC_ALL: 'C' } })).stdout
  } catch (cause) {
    const what = `building the guest with an agent failed at: ${command} ${args.join(' ')}\n${messageOf(cause)}`
    throw new DiapauseError('GUEST_COMMAND', what, { cause })
  }
}
