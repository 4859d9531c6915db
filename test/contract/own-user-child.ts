// What a peer's hypervisor is to the user that runs this: tells how VMs would be cut, and which capabilities a QEMU of theirs has.
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { commonArguments } from '../../node/hypervisor/command-line.ts'
import { spawnQemu } from '../../node/hypervisor/process.ts'
import { createQemuHypervisor, preloaded } from '../../node/hypervisor/qemu.ts'
import { clock, quietLog as log } from './real-clock.ts'

const qemu = 'qemu-system-x86_64'
const runDir = await mkdtemp(join(tmpdir(), 'own-user-'))
const settings = { qemu, accel: 'tcg', capture: 'auto', ramDir: '/dev/shm', trialMs: 20_000 } as const
const hypervisor = await createQemuHypervisor({
  settings,
  peer: 'own-user',
  runDir,
  nativeDir: join(runDir, 'native'),
  log,
  clock
})
const preload = await preloaded(qemu, join(runDir, 'native'))
const program = { path: qemu, sandbox: true, confined: true, preload }
const machine = await spawnQemu(program, [...commonArguments('tcg', 'diapause:test:own-user'), '-S', '-m', '16'])
const status = (): string => readFileSync(`/proc/${machine.pid}/status`, 'latin1')
while (!/^Seccomp:\s*2$/m.test(status())) await new Promise(resolve => setTimeout(resolve, 10))
const effective = /^CapEff:\s*(\S+)$/m.exec(status())?.[1]
machine.kill()
await machine.exited
await hypervisor.close?.()
await rm(runDir, { recursive: true, force: true })
const { capture, captureWhy } = hypervisor
process.stdout.write(JSON.stringify({ uid: process.getuid?.(), capture, captureWhy, effective }))
