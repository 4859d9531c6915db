/**
 * What captures are compared with: QEMU's own `savevm` of a VM with the same memory in use, which keeps RAM in a qcow2 disk while
 * the VM stands still; and `zstd -1` of everything that a background snapshot sends. That stream is recorded, for the
 * pipeline to be fed with (`capture-pipeline.ts`).
 */
import { execFile } from 'node:child_process'
import { createReadStream, createWriteStream } from 'node:fs'
import { stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { constants, createZstdCompress } from 'node:zlib'
import { readFile } from 'node:fs/promises'
import { backgroundSnapshot, prepare } from '../../node/hypervisor/background-snapshot.ts'
import { type Accel, machineArguments } from '../../node/hypervisor/command-line.ts'
import { type QemuProcess, spawnQemu } from '../../node/hypervisor/process.ts'
import { listenForQmp, QmpClient } from '../../node/hypervisor/qmp.ts'
import { plug } from '../contract/hypervisor-support.ts'
import { clock } from '../contract/real-clock.ts'
import { bankVm, buildGuest } from '../guest/build.ts'
import { parseSpeed } from '../guest/speed.ts'

const BINARY = 'qemu-system-x86_64'
/** savevm is one command, and takes as long as it takes to write RAM. */
const SAVE_MS = 300_000
const BOOT_MS = 300_000
const ROUNDS = 2

export interface Savevm {
  readonly pauseMs: number
  readonly bytes: number
}

export interface Compared {
  readonly saves: readonly Savevm[]
  readonly streamBytes: number
  readonly zstdBytes: number
  readonly zstdSeconds: number
}

/** `streamPath`: where the recorded stream is to be. */
export async function compareWithQemu(
  options: { accel: Accel; memoryMiB: number; fillMiB: number; folder: string; streamPath: string },
  progress: (line: string) => void
): Promise<Compared> {
  const { folder, streamPath } = options
  const vm = await bootVm(options)
  try {
    const saves: Savevm[] = []
    for (let round = 0; round < ROUNDS; round++) {
      progress('savevm')
      saves.push(await save(vm.qmp, `s${round}`))
    }
    progress('recording a background snapshot')
    await record(vm.qmp, join(folder, 'stream'), streamPath)
    await vm.stop()
    progress('zstd -1 of it')
    const { size } = await stat(streamPath)
    return { saves, streamBytes: size, ...(await zstd(streamPath)) }
  } finally {
    await vm.stop()
  }
}

/** With a disk of its own, without which `savevm` has no place to write to. */
async function bootVm({
  accel,
  memoryMiB,
  fillMiB,
  folder
}: {
  accel: Accel
  memoryMiB: number
  fillMiB: number
  folder: string
}) {
  const spec = bankVm(await buildGuest(), { index: 1, total: 1, memoryMiB, run: 'load', fillMiB })
  const disk = join(folder, 'savevm.qcow2')
  await promisify(execFile)('qemu-img', ['create', '-q', '-f', 'qcow2', disk, '1G'])
  const paths = { qmp: join(folder, 'qmp'), consoleLog: join(folder, 'log') }
  await writeFile(paths.consoleLog, '')
  const nic = await plug(join(folder, 'nic'))
  const listener = await listenForQmp(paths.qmp)
  const common = {
    accel,
    guest: `bench:savevm:${process.pid}`,
    spec,
    ends: nic.ends,
    paths,
    incoming: false,
    sharedRam: false
  }
  const drive = `file=${disk},format=qcow2,if=none,id=state`
  let qemu: QemuProcess | undefined
  const stop = async () => {
    listener.close()
    qemu?.kill()
    await qemu?.exited
    await nic.close()
  }
  try {
    qemu = await spawnQemu(BINARY, [
      ...machineArguments(common),
      '-drive',
      drive,
      '-device',
      'virtio-blk-pci,drive=state'
    ])
    const qmp = await QmpClient.open(await listener.connection, { clock, commandTimeoutMs: SAVE_MS })
    for (const fromMs = performance.now(); ; await sleep(50)) {
      if (parseSpeed(await readFile(paths.consoleLog, 'latin1')).some(({ kind }) => kind === 'ready')) break
      if (performance.now() - fromMs > BOOT_MS) throw new Error('the guest did not boot')
    }
    return { qmp, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function save(qmp: QmpClient, name: string): Promise<Savevm> {
  const times = { stopMs: Number.NaN, resumeMs: Number.NaN }
  const stopped = qmp.waitEvent('STOP').then(() => (times.stopMs = performance.now()))
  const resumed = qmp.waitEvent('RESUME').then(() => (times.resumeMs = performance.now()))
  const said = await qmp.command('human-monitor-command', { 'command-line': `savevm ${name}` })
  if (said !== '') throw new Error(`savevm: ${String(said)}`)
  await Promise.all([stopped, resumed])
  const [block] = (await qmp.command('query-block')) as [
    { inserted: { image: { snapshots: { name: string; 'vm-state-size': number }[] } } }
  ]
  const snapshot = block.inserted.image.snapshots.find(each => each.name === name)
  return { pauseMs: times.resumeMs - times.stopMs, bytes: snapshot?.['vm-state-size'] ?? Number.NaN }
}

async function record(qmp: QmpClient, socketPath: string, path: string): Promise<void> {
  const written = Promise.withResolvers<void>()
  const server = createServer(socket => {
    server.close()
    written.resolve(pipeline(socket, createWriteStream(path)))
  })
  await new Promise<void>(resolve => server.listen(socketPath, resolve))
  await prepare(qmp, 'snapshot')
  await qmp.command('stop')
  // From QEMU 9 on it would have to be told to go on; this VM is needed no more.
  const { streamed } = await backgroundSnapshot(qmp, { path: socketPath, resumesByItself: true, clock })
  await streamed
  await written.promise
}

async function zstd(path: string): Promise<{ zstdBytes: number; zstdSeconds: number }> {
  let zstdBytes = 0
  const count = new Writable({
    write(chunk: Buffer, _, done) {
      zstdBytes += chunk.length
      done()
    }
  })
  const fromMs = performance.now()
  const level = { [constants.ZSTD_c_compressionLevel]: 1 }
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), createZstdCompress({ params: level }), count)
  return { zstdBytes, zstdSeconds: (performance.now() - fromMs) / 1000 }
}
