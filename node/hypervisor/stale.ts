/**
 * Finds and kills the QEMUs that an earlier run of a peer left behind. A peer that returns does this before anything
 * else: its VMs may meanwhile run elsewhere, and a VM must not run twice.
 */
import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { DiapauseError } from '../errors.ts'
import type { Clock } from '../ports.ts'
import { isMachineOf, TRIAL_PREFIX } from './command-line.ts'

/** A killed process is gone within milliseconds, unless the kernel is stuck in a system call of it. */
const GONE_WITHIN_MS = 10_000
const LOOK_AGAIN_MS = 5

/**
 * Kills every QEMU of `peer`, waits until they are gone, and removes their sockets and the folders of trials from `runDir`.
 * The number killed. Rejects with HYPERVISOR_STALE where one does not go: then nothing may be started here.
 */
export async function killStaleMachines(
  peer: string,
  { runDir, clock }: { readonly runDir: string; readonly clock: Clock }
): Promise<number> {
  const killed = new Set<number>()
  const deadline = clock.now() + GONE_WITHIN_MS
  for (let left = await machinesOf(peer); left.length > 0; left = await machinesOf(peer)) {
    if (clock.now() > deadline) {
      throw new DiapauseError(
        'HYPERVISOR_STALE',
        `Old QEMU processes of this peer do not die: ${left.join(', ')}. End them (or restart the host) first`,
        { details: { pids: left } }
      )
    }
    for (const pid of left) {
      killed.add(pid)
      killIfThere(pid)
    }
    await new Promise<void>(resolve => clock.after(LOOK_AGAIN_MS, resolve))
  }
  await removeRemains(runDir)
  return killed.size
}

/** Process ids of the QEMUs of `peer`. A zombie has no command line and holds nothing: it does not count. */
async function machinesOf(peer: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter(name => /^[1-9]\d*$/.test(name)).map(Number)
  const argvs = await Promise.all(
    // Processes come and go, and other users' may be hidden: what cannot be read is not ours.
    pids.map(pid => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''))
  )
  return pids.filter((_, i) => isMachineOf(peer, argvs[i]?.split('\0') ?? []))
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** Sockets as machine.ts and spare-tracker.ts call them (HASH.N.qmp, tracker.N.uffd), and folders of trials. */
async function removeRemains(runDir: string): Promise<void> {
  const names = await readdir(runDir).catch(() => [])
  const stale = names.filter(name => /\.\d+\.(qmp|uffd)$/.test(name) || name.startsWith(TRIAL_PREFIX))
  await Promise.all(stale.map(name => rm(join(runDir, name), { recursive: true, force: true })))
}
