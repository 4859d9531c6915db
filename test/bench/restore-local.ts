/**
 * What a restore out of shards is compared with: QEMU by itself that loads the same image from a local file, as a stream
 * (`-incoming`) and as a snapshot in a qcow2 (`loadvm`). The files are in the page cache: no disk is what is measured.
 */
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { type Accel, machineArguments } from '../../node/hypervisor/command-line.ts'
import { typeOn } from '../../node/hypervisor/console.ts'
import { type QemuProcess, spawnQemu } from '../../node/hypervisor/process.ts'
import { listenForQmp, QmpClient } from '../../node/hypervisor/qmp.ts'
import type { VmSpec } from '../../protocols/group.ts'
import { plug } from '../contract/hypervisor-support.ts'
import { clock } from '../contract/real-clock.ts'
import { parseSpeed } from '../guest/speed.ts'

const BINARY = 'qemu-system-x86_64'
/** loadvm and savevm are one command each, and take as long as RAM takes. */
const COMMAND_MS = 300_000
const ANSWER_MS = 60_000
const SNAPSHOT = 'image'

export interface LocalRound {
  /** Milliseconds since QEMU was spawned. */
  readonly runMs: number
  readonly answerMs: number
}

export interface LocalImage {
  readonly accel: Accel
  readonly spec: VmSpec
  readonly folder: string
  /** The stream, as an export writes it. */
  readonly streamPath: string
}

/** Starts from the stream again and again. */
export async function measureIncoming(image: LocalImage, rounds: number): Promise<LocalRound[]> {
  const seen: LocalRound[] = []
  for (let round = 0; round < rounds; round++) seen.push(await fromStream(image, async () => {}))
  return seen
}

/** Makes a snapshot out of the stream, and starts from that again and again. */
export async function measureLoadvm(image: LocalImage, rounds: number): Promise<LocalRound[]> {
  const disk = join(image.folder, 'loadvm.qcow2')
  // Room for RAM and more: a qcow2 takes what is written to it.
  await promisify(execFile)('qemu-img', ['create', '-q', '-f', 'qcow2', disk, '64G'])
  const drive = ['-drive', `file=${disk},format=qcow2,if=none,id=state`]
  await fromStream(image, async qmp => await monitor(qmp, `savevm ${SNAPSHOT}`), drive)
  const seen: LocalRound[] = []
  for (let round = 0; round < rounds; round++) {
    const vm = await LocalQemu.spawn(image, { incoming: false, more: ['-S', ...drive] })
    seen.push(await vm.measured(() => monitor(vm.qmp, `loadvm ${SNAPSHOT}`).then(() => vm.qmp.command('cont'))))
  }
  return seen
}

/** `then`: what is done with the VM when it has answered. */
async function fromStream(
  image: LocalImage,
  then: (qmp: QmpClient) => Promise<void>,
  more: readonly string[] = []
): Promise<LocalRound> {
  const vm = await LocalQemu.spawn(image, { incoming: true, more })
  return await vm.measured(() => vm.qmp.command('migrate-incoming', { uri: `exec:cat ${image.streamPath}` }), then)
}

async function monitor(qmp: QmpClient, line: string): Promise<void> {
  const said = await qmp.command('human-monitor-command', { 'command-line': line })
  if (said !== '') throw new Error(`${line}: ${String(said)}`)
}

class LocalQemu {
  readonly qmp: QmpClient
  readonly #spawnedMs: number
  readonly #qemu: QemuProcess
  readonly #consoleLog: string
  readonly #close: () => Promise<void>

  private constructor(parts: {
    qmp: QmpClient
    spawnedMs: number
    qemu: QemuProcess
    consoleLog: string
    close: () => Promise<void>
  }) {
    this.qmp = parts.qmp
    this.#spawnedMs = parts.spawnedMs
    this.#qemu = parts.qemu
    this.#consoleLog = parts.consoleLog
    this.#close = parts.close
  }

  /** Resolves when it listens to its monitor. */
  static async spawn(
    { accel, spec, folder }: LocalImage,
    { incoming, more }: { incoming: boolean; more: readonly string[] }
  ): Promise<LocalQemu> {
    const path = (kind: string) => join(folder, `local.${kind}`)
    const paths = { qmp: path('qmp'), consoleLog: path('log') }
    await writeFile(paths.consoleLog, '')
    const nic = await plug(path('nic'))
    const listener = await listenForQmp(paths.qmp)
    const guest = `bench:local:${process.pid}`
    const args = machineArguments({ accel, guest, spec, ends: nic.ends, paths, incoming, sharedRam: false })
    const spawnedMs = clock.now()
    // The sandbox forbids `exec:`.
    const qemu = await spawnQemu({ path: BINARY, sandbox: false, confined: true }, [...args, ...more])
    const close = async () => {
      listener.close()
      qemu.kill()
      await qemu.exited
      await nic.close()
    }
    try {
      const qmp = await QmpClient.open(await listener.connection, { clock, commandTimeoutMs: COMMAND_MS })
      return new LocalQemu({ qmp, spawnedMs, qemu, consoleLog: paths.consoleLog, close })
    } catch (error) {
      await close()
      throw error
    }
  }

  /** `load` makes the VM run. Ends it when it has answered and `then` is done. */
  async measured(
    load: () => Promise<unknown>,
    then: (qmp: QmpClient) => Promise<void> = async () => {}
  ): Promise<LocalRound> {
    try {
      const runs = this.qmp.waitEvent('RESUME')
      const died = this.#qemu.exited.then(({ reason }) => Promise.reject(new Error(`QEMU ${reason}`)))
      await Promise.race([load().then(() => runs), died])
      const runMs = clock.now() - this.#spawnedMs
      typeOn(this.#qemu.input, '\nstatus 1\n')
      while (!parseSpeed(await readFile(this.#consoleLog, 'latin1')).some(({ id }) => id === 1)) {
        if (clock.now() - this.#spawnedMs > ANSWER_MS) throw new Error('the guest did not answer')
        await sleep(1)
      }
      const answerMs = clock.now() - this.#spawnedMs
      await then(this.qmp)
      return { runMs, answerMs }
    } finally {
      await this.#close()
    }
  }
}
