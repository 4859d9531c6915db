/**
 * What a library between programs and the C library says of the wall clock, of fsync, and of writes that sync by themselves, as
 * those of columns do (`shim.c`): wall clocks cannot be made for a namespace alone, and a kernel without device mapper or
 * fault injection has no disk whose fsync fails and whose file system stays. Programs must be started with it; a file
 * then tells them what to say, and counts.
 *
 * What it does not show: a real jump is heard by QEMU, too, and seen in the times of files.
 */
import { existsSync } from 'node:fs'
import { mkdir, open, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { hasCode } from '../../../node/errors.ts'
import { type Fault, type Heal, type Home, once, type Target } from '../fault.ts'
import { compile, needsPrograms } from './tools.ts'

/** As in `shim.c`. */
const FILE_BYTES = 4096
const AT = { ahead: 0, failing: 8, failed: 16, moved: 24 } as const

const HOUR_MS = 3_600_000

export interface ShimCounts {
  /** fsync, fdatasync and writes that sync which gave EIO. */
  readonly failed: number
  /** Questions for the time that were answered with another one. */
  readonly moved: number
}

const controlFile = ({ scratchDir }: Pick<Home, 'scratchDir'>): string => join(scratchDir, 'shim')

/** The environment of programs that are to have it. May be called again. UsageError CHAOS_TOOLS without a C compiler. */
export async function prepareShim(home: Pick<Home, 'scratchDir'>): Promise<NodeJS.ProcessEnv> {
  await mkdir(home.scratchDir, { recursive: true })
  const library = join(home.scratchDir, 'shim.so')
  if (!existsSync(library)) {
    const temporary = join(home.scratchDir, `shim-${process.hrtime.bigint()}`)
    await compile(join(import.meta.dirname, 'shim.c'), temporary, '-shared', '-fPIC')
    await rename(temporary, library)
  }
  await writeFile(controlFile(home), Buffer.alloc(FILE_BYTES), { flag: 'wx' }).catch((error: unknown) => {
    if (!hasCode(error, 'EEXIST')) throw error
  })
  return { LD_PRELOAD: library, DIAPAUSE_CHAOS_SHIM: controlFile(home) }
}

/** Since it was prepared. */
export async function shimCounts(home: Pick<Home, 'scratchDir'>): Promise<ShimCounts> {
  const bytes = await withControl(home, async file => {
    const { buffer } = await file.read(Buffer.alloc(FILE_BYTES), 0, FILE_BYTES, 0)
    return buffer
  })
  return { failed: Number(bytes.readBigUInt64LE(AT.failed)), moved: Number(bytes.readBigUInt64LE(AT.moved)) }
}

async function withControl<T>(
  home: Pick<Home, 'scratchDir'>,
  use: (file: Awaited<ReturnType<typeof open>>) => Promise<T>
): Promise<T> {
  const file = await open(controlFile(home), 'r+')
  try {
    return await use(file)
  } finally {
    await file.close()
  }
}

/** Of processes that were started with it, and of those that will be. */
async function tell(home: Target, at: number, value: Buffer, before: Buffer): Promise<Heal> {
  const put = (bytes: Buffer) => withControl(home, async file => void (await file.write(bytes, 0, bytes.length, at)))
  await put(value)
  return once(() => put(before))
}

function jump(name: string, about: string, ms: number): Fault {
  const value = Buffer.alloc(8)
  value.writeBigInt64LE(BigInt(ms) * 1_000_000n)
  return {
    name,
    about,
    lasts: { leastMs: 2_000, mostMs: 30_000 },
    reach: 'one',
    needs: needsPrograms('gcc'),
    prepare: prepareShim,
    begin: target => tell(target, AT.ahead, value, Buffer.alloc(8))
  }
}

/** The heal jumps back. */
export const clockAhead = jump('clock-ahead', 'its wall clock jumps an hour ahead', HOUR_MS)
export const clockBehind = jump('clock-behind', 'its wall clock jumps an hour back', -HOUR_MS)

/** Of 1000 syncs: now and then, to all of them. */
const FAILING = { least: 20, most: 1_000 }

/**
 * Of files on any disk, but there is one that a peer syncs on. What was not synced is still there when the process ends, and
 * so is what a write wrote that gave EIO.
 */
export const failingSync: Fault = {
  name: 'failing-fsync',
  about: 'some or all of its fsync, and of its writes that sync, give EIO',
  lasts: { leastMs: 1_000, mostMs: 20_000 },
  reach: 'one',
  needs: needsPrograms('gcc'),
  prepare: prepareShim,
  async begin(target) {
    const value = Buffer.alloc(4)
    value.writeUInt32LE(Math.round(FAILING.least + target.random() * (FAILING.most - FAILING.least)))
    return await tell(target, AT.failing, value, Buffer.alloc(4))
  }
}
