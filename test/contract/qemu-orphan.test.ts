import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { expect, it } from 'vitest'
import { commonArguments, guestName } from '../../node/hypervisor/command-line.ts'
import { killStaleMachines } from '../../node/hypervisor/stale.ts'
import { clock } from './real-clock.ts'

const peer = `orphan-${process.pid}`
const gone = (pid: number) => !existsSync(`/proc/${pid}/exe`)

it('QEMU dies with its peer, also when that is killed with SIGKILL', async () => {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'qemu-orphan-child.ts'), guestName(peer, 'vm')])
  const [line] = await once(child.stdout, 'data')
  const pid = Number(line)
  expect(gone(pid)).toBe(false)
  child.kill('SIGKILL')
  await expect.poll(() => gone(pid), { timeout: 10_000 }).toBe(true)
})

it('a QEMU that has outlived its peer nevertheless is killed by the next run, with its sockets and what a trial has left', async () => {
  const runDir = await mkdtemp(join(tmpdir(), 'orphan-'))
  const start = (owner: string) => {
    const args = [...commonArguments('tcg', guestName(owner, 'vm')), '-S', '-m', '16']
    return spawn('qemu-system-x86_64', args, { detached: true, stdio: 'ignore' })
  }
  const [stale, other] = [start(peer), start(`${peer}x`)]
  try {
    await Promise.all([once(stale, 'spawn'), once(other, 'spawn')])
    for (const name of ['vm.1.qmp', 'vm.console.log']) await writeFile(join(runDir, name), '')
    await mkdir(join(runDir, 'trial-x'))
    await writeFile(join(runDir, 'trial-x', 'qmp'), '')
    expect(await killStaleMachines(peer, { runDir, clock })).toBe(1)
    expect([gone(stale.pid ?? 0), gone(other.pid ?? 0)]).toEqual([true, false])
    expect(await readdir(runDir)).toEqual(['vm.console.log'])
    expect(await killStaleMachines(peer, { runDir, clock })).toBe(0)
  } finally {
    stale.kill('SIGKILL')
    other.kill('SIGKILL')
    await rm(runDir, { recursive: true, force: true })
  }
})

it('QEMU is not started from a worker thread, with which it would die', async () => {
  const worker = new Worker(join(import.meta.dirname, 'qemu-orphan-child.ts'), { argv: [guestName(peer, 'vm')] })
  const [error] = await once(worker, 'error')
  expect(String(error)).toMatch(/main thread/)
})
