/**
 * No core dumps of this process and of all that it starts: keys of the cluster are in its memory, and what guests have in that of QEMU
 * (whose guests' RAM is left out anyway: `dump-guest-core=off`).
 *
 * The limit is one byte. Into a file that is nothing, since no core is so small. A program to which the kernel pipes cores
 * (`core_pattern`, systemd-coredump or apport) would get them whatever the limit is, also with 0; 1 alone ends it (core(5), fs/coredump.c).
 */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { messageOf } from '../errors.ts'

const run = promisify(execFile)

/** Beyond this prlimit hangs. A guess. */
const LIMIT_MS = 5_000

/** Called once, by `main.ts`, for all commands. Undefined: there will be none. Else why there may be. Takes 2 to 3 ms (util-linux's prlimit, which comes with setpriv). */
export async function leaveNoCore(): Promise<string | undefined> {
  const limited = async (bytes: number): Promise<void> =>
    void (await run('prlimit', [`--core=${bytes}:${bytes}`, '--pid', String(process.pid)], { timeout: LIMIT_MS }))
  try {
    // Where it is 0 for good already, only root may raise it to 1.
    await limited(1).catch(() => limited(0))
    return undefined
  } catch (error) {
    return messageOf(error)
  }
}
