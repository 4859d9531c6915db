/**
 * Damage to what a voter remembers of its votes, while it is down: bytes that turn, files that end early. Such a voter must not
 * vote; the others are a majority, and go on. Then its operator puts the files back as they were. Where the peer has found nothing
 * wrong and votes on (a file that is not read any more), what it has is newer, and stays.
 *
 * The log that is being written is not cut: one that ends early is what a power loss leaves, and cannot be told from that.
 */
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type Fault, once, type Target } from '../fault.ts'

const FOLDER = 'registers'
const MOST_DAMAGES = 4

interface Damage {
  /** Whether a file may be damaged, by its name. */
  readonly hits: (name: string) => boolean
  readonly act: (path: string, random: () => number) => void
}

/** LevelDB writes these for people, and locks by that. */
const isRead = (name: string): boolean => !/^(LOG|LOG\.old|LOCK)$/.test(name)
const isLog = (name: string): boolean => name.endsWith('.log')

const damage = (name: string, about: string, { hits, act }: Damage): Fault => ({
  name,
  about,
  lasts: { leastMs: 5_000, mostMs: 20_000 },
  reach: 'one',
  harms: true,
  async begin(target) {
    const folder = join(target.dataDir, FOLDER)
    const copy = join(target.scratchDir, FOLDER)
    const start = await target.halt()
    rmSync(copy, { recursive: true, force: true })
    if (existsSync(folder)) cpSync(folder, copy, { recursive: true, preserveTimestamps: true })
    for (const path of drawn(folder, hits, target.random)) act(path, target.random)
    await start()
    return once(() => putBack(target, folder, copy))
  }
})

function drawn(folder: string, hits: (name: string) => boolean, random: () => number): string[] {
  const names = existsSync(folder) ? readdirSync(folder).filter(name => isRead(name) && hits(name)) : []
  const full = names.sort().filter(name => statSync(join(folder, name)).size > 0)
  const name = full[Math.floor(random() * full.length)]
  return name === undefined ? [] : [join(folder, name)]
}

async function putBack(target: Target, folder: string, copy: string): Promise<void> {
  const start = await target.halt()
  if (existsSync(copy) && !hasVoted(folder, copy)) {
    rmSync(folder, { recursive: true, force: true })
    cpSync(copy, folder, { recursive: true, preserveTimestamps: true })
    // Or a power loss some seconds later would take what no peer has written.
    for (const name of readdirSync(folder)) await sync(join(folder, name))
    for (const path of [folder, dirname(folder)]) await sync(path)
  }
  rmSync(copy, { recursive: true, force: true })
  await start()
}

async function sync(path: string): Promise<void> {
  const file = await open(path, 'r')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}

/** A store that was opened has a log of a later number, which is empty until something is written to it. */
function hasVoted(folder: string, copy: string): boolean {
  const before = new Set(readdirSync(copy))
  return readdirSync(folder).some(name => isLog(name) && !before.has(name) && statSync(join(folder, name)).size > 0)
}

export const registerRot = damage('register-rot', 'bits turn in its registers while it is down', {
  hits: () => true,
  act(path, random) {
    const bytes = readFileSync(path)
    for (let left = 1 + Math.floor(random() * MOST_DAMAGES); left > 0; left--) {
      const at = Math.floor(random() * bytes.length)
      bytes[at] = (bytes[at] ?? 0) ^ (1 << Math.floor(random() * 8))
    }
    writeFileSync(path, bytes)
  }
})

export const registerTruncation = damage('register-truncation', 'a file of its registers ends early', {
  hits: name => !isLog(name),
  act: (path, random) => truncateSync(path, Math.floor(random() * statSync(path).size))
})
