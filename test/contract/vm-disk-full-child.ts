// A VM whose disk is written to a file system of its own, which then has no room left: tells how the VM ends. In a namespace of its own.
import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import { buildGuest } from '../guest/build.ts'
import { counterVm, makeCounterDisk, parseCounter } from '../guest/counter.ts'
import { clock, quietLog as log } from './real-clock.ts'

const folder = process.argv[2] ?? ''
const [full, files, consolePath] = ['full', 'files', 'console'].map(name => join(folder, name)) as [
  string,
  string,
  string
]
for (const made of [full, files]) mkdirSync(made)
execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'none', full])

const path = join(folder, 'base.raw')
await makeCounterDisk(path, 64, files)
const disks = [{ sizeMiB: 64, base: { path, format: 'raw' as const } }]
const spec = counterVm(await buildGuest(), { memoryMiB: 96, disks, intervalUs: 2_000 })
await writeFile(consolePath, '')
const settings = {
  qemu: 'qemu-system-x86_64',
  accel: 'auto',
  capture: 'auto',
  ramDir: '/dev/shm',
  trialMs: 5_000
} as const
const hypervisor = await createQemuHypervisor({ settings, peer: 'full', runDir: join(folder, 'run'), log, clock })
const ended = Promise.withResolvers<string>()
const machine = hypervisor.define({
  spec,
  ends: [],
  consolePath,
  disks: { folder: join(full, 'layers'), starts: [{ kind: 'new' }] },
  onExit: ended.resolve
})
await machine.start()
while (parseCounter(await readFile(consolePath, 'utf8')).length === 0)
  await new Promise(resolve => setTimeout(resolve, 20))
const ranBefore = machine.pid !== undefined
fill(join(full, 'another'))
const reason = await ended.promise
const leftBytes = statfsSync(full).bavail
await hypervisor.close?.()
execFileSync('umount', [full])
rmSync(full, { recursive: true })
process.stdout.write(JSON.stringify({ ranBefore, reason, leftBytes, runs: machine.pid !== undefined }))

/** As another VM that writes, until nothing is left. */
function fill(file: string): void {
  const fd = openSync(file, 'w')
  try {
    for (;;) writeSync(fd, Buffer.alloc(4_096))
  } catch {
    closeSync(fd)
  }
}
