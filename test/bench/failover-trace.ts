/** Follows the frame traces of all peers (`[switch] traceFile`, see node/switch/trace.ts) as they grow. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { hasCode } from '../../node/errors.ts'
import type { TraceLine } from '../../node/switch/trace.ts'
import type { TracedFrame } from './failover-judge.ts'

/** What waits for a lease or a generation reaches no VM before it is taken, which is not told again. */
const WHAT = { sent: 'sent', taken: 'accepted', fenced: 'waits', early: 'waits', old: 'refused' } as const

interface Tail {
  readonly peer: string
  readonly path: string
  offset: number
  inode: number
  rest: string
}

export class Traces {
  readonly #tails: readonly Tail[]

  constructor(files: readonly { readonly peer: string; readonly path: string }[]) {
    this.#tails = files.map(file => ({ ...file, offset: 0, inode: 0, rest: '' }))
  }

  /** What was written since the last call. */
  take(): TracedFrame[] {
    return this.#tails.flatMap(tail => [...this.#rotated(tail), ...read(tail, tail.path)])
  }

  /** The file that was read before is FILE.1 now, and may have grown since. */
  #rotated(tail: Tail): TracedFrame[] {
    return tail.inode === 0 || inodeOf(tail.path) === tail.inode ? [] : read(tail, `${tail.path}.1`)
  }
}

const inodeOf = (path: string): number | undefined => opened(path, fd => fstatSync(fd).ino)

function read(tail: Tail, path: string): TracedFrame[] {
  const text = opened(path, fd => {
    const { ino, size } = fstatSync(fd)
    if (ino !== tail.inode) Object.assign(tail, { inode: ino, offset: 0, rest: '' })
    const bytes = Buffer.alloc(size - tail.offset)
    tail.offset += readSync(fd, bytes, 0, bytes.length, tail.offset)
    return bytes.toString('utf8')
  })
  const lines = `${tail.rest}${text ?? ''}`.split('\n')
  tail.rest = lines.pop() ?? ''
  return lines.map(line => {
    const { ms, generation, verdict, peer } = JSON.parse(line) as TraceLine
    return { atMs: ms, peer: tail.peer, other: peer, what: WHAT[verdict], generation }
  })
}

/** Undefined where the file is not there: a peer that has not started yet. */
function opened<T>(path: string, use: (fd: number) => T): T | undefined {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
  try {
    return use(fd)
  } finally {
    closeSync(fd)
  }
}
