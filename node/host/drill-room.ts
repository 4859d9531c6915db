/**
 * The folder of a drill, `drill` in the peer's run folder, which is there while the drill is:
 *
 *   drill.json      what it is: group, epoch, VMs with their sockets and files, networks
 *   VM.console      a socket: what is written to it is typed on the VM's console, and what the VM says comes from it
 *   VM.log          what the VM has said since it went on
 *   net, net1, …    sockets, one for each network, on which something may join as QEMU's `-netdev stream` does
 *   0.nic, …       sockets of the VMs' own, by their places in the group
 *   drill-say       a command for shells: types a line and waits for an answer
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import net from 'node:net'
import { setPriority } from 'node:os'
import { join } from 'node:path'
import { nicPathOf, nicsOf } from '../../protocols/group.ts'
import { DiapauseError } from '../errors.ts'
import type { DrillAbout, DrillHost, DrillRoom, Log } from '../ports.ts'
import { killChecksOf, runCheck } from './drill-check.ts'

/** sockaddr_un.sun_path has 108 bytes with its terminating zero (unix(7)). */
const SOCKET_PATH_BYTES = 107
/** How often a console's file is looked at while somebody reads it. A guess: a person's eye. */
const LOOK_MS = 50
/** Whoever reads slower than the VM speaks is cut off at this much. */
const UNREAD_BYTES = 1 << 20
/** Below the guests, as they are below the peer. */
const NICE = 15

export interface DrillHostOptions {
  readonly runDir: string
  readonly log: Log
  /** The program and its arguments of this diapause's command line. */
  readonly program: readonly string[]
}

export const drillFolder = (runDir: string): string => join(runDir, 'drill')

/** Of a run of this peer that died over a drill; its VMs are found as all its VMs are. */
export async function clearStaleDrill(runDir: string): Promise<void> {
  const folder = drillFolder(runDir)
  await killChecksOf(folder)
  await rm(folder, { recursive: true, force: true })
}

export function createDrillHost({ runDir, log, program }: DrillHostOptions): DrillHost {
  const folder = drillFolder(runDir)
  return {
    availableBytes: () => process.availableMemory(),
    async open(about) {
      try {
        await clearStaleDrill(runDir)
        await mkdir(folder, { recursive: true, mode: 0o700 })
        const say = `#!/bin/sh\nexec ${[...program, 'drill', 'say'].map(quoted).join(' ')} "$@"\n`
        await writeFile(join(folder, 'drill-say'), say, { mode: 0o700 })
        await writeFile(join(folder, 'drill.json'), `${JSON.stringify(textOf(folder, about), null, 2)}\n`)
      } catch (cause) {
        throw new DiapauseError('DRILL_FOLDER', `the folder ${folder} of a drill cannot be made`, { cause })
      }
      return new Room(folder, about, log)
    }
  }
}

/** As `drill.json` has it. */
const textOf = (folder: string, { group, epoch, vms, networks }: DrillAbout): object => ({
  group,
  epoch,
  vms: vms.map((vm, index) => ({
    id: vm.id,
    console: consolePath(folder, vm.id, index),
    log: logPath(folder, vm.id),
    nics: nicsOf(vm)
  })),
  networks: networks.map(({ network, mac }, index) => ({ network, socket: nicPathOf(join(folder, 'net'), index), mac }))
})

const logPath = (folder: string, vm: string): string => join(folder, `${vm}.log`)

/** A VM's name may be longer than a socket's. */
export function consolePath(folder: string, vm: string, index: number): string {
  const path = join(folder, `${vm}.console`)
  return Buffer.byteLength(path) <= SOCKET_PATH_BYTES ? path : join(folder, `${index}.console`)
}

const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`

class Room implements DrillRoom {
  readonly folder: string
  readonly netPath: string
  readonly #about: DrillAbout
  readonly #log: Log
  readonly #consoles: ConsoleServer[] = []
  readonly #closed = new AbortController()
  #checks: Promise<unknown> = Promise.resolve()

  constructor(folder: string, about: DrillAbout, log: Log) {
    this.folder = folder
    this.netPath = join(folder, 'net')
    this.#about = about
    this.#log = log
  }

  logOf(vm: string): string {
    return logPath(this.folder, vm)
  }

  socketOf(vm: string, kind: string): string {
    return join(this.folder, `${this.#about.vms.findIndex(({ id }) => id === vm)}.${kind}`)
  }

  async openConsoles(type: (vm: string, text: string) => Promise<void>): Promise<void> {
    for (const [index, { id }] of this.#about.vms.entries()) {
      const server = new ConsoleServer(this.logOf(id), text => {
        type(id, text).catch((error: unknown) => this.#log.warn({ vm: id, err: error }, 'what was typed is lost'))
      })
      this.#consoles.push(server)
      await server.listen(consolePath(this.folder, id, index))
    }
  }

  async giveWay(pid: number): Promise<void> {
    const steps = [
      async () => {
        for (const thread of await readdir(`/proc/${pid}/task`)) setPriority(Number(thread), NICE)
      },
      // Of a QEMU whose memory is closed to its user (`hypervisor/native/handoff.c`) root's alone.
      () => writeFile(`/proc/${pid}/oom_score_adj`, '1000')
    ]
    for (const step of steps) {
      await step().catch((error: unknown) =>
        this.#log.debug({ pid, err: error }, 'a process of a drill has ended, or keeps its priority')
      )
    }
  }

  async check(command: string, options: Parameters<DrillRoom['check']>[1]) {
    const { group, epoch, vms } = this.#about
    const variables = {
      DIAPAUSE_DRILL_GROUP: group,
      DIAPAUSE_DRILL_EPOCH: `${epoch}`,
      DIAPAUSE_DRILL_VMS: vms.map(({ id }) => id).join(' ')
    }
    const signal = AbortSignal.any([options.signal, this.#closed.signal])
    const running = runCheck(command, { folder: this.folder, variables }, { ...options, signal })
    this.#checks = running.catch(() => {})
    return await running
  }

  async close(): Promise<void> {
    this.#closed.abort()
    await this.#checks
    await Promise.all(this.#consoles.map(server => server.close()))
    await rm(this.folder, { recursive: true, force: true })
  }
}

/** One VM's console, for as many as want it. Each hears what comes from when it connects on. */
class ConsoleServer {
  readonly #file: string
  readonly #server: net.Server
  readonly #readers = new Set<net.Socket>()
  #timer: NodeJS.Timeout | undefined
  #offset = 0

  constructor(file: string, type: (text: string) => void) {
    this.#file = file
    this.#server = net.createServer(socket => {
      this.#poll() // what others have not heard yet is not for this one
      this.#readers.add(socket)
      this.#timer ??= setInterval(() => this.#poll(), LOOK_MS)
      socket.setEncoding('utf8').on('data', (text: string) => type(text))
      socket.on('error', () => {}) // 'close' follows
      socket.on('close', () => {
        this.#readers.delete(socket)
        if (this.#readers.size > 0) return
        clearInterval(this.#timer)
        this.#timer = undefined
      })
    })
  }

  async listen(path: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      // Also of one that it cannot let in later: it goes on with the others.
      this.#server.on('error', cause => {
        reject(new DiapauseError('DRILL_FOLDER', `cannot listen on ${path}: ${cause.message}`, { cause }))
      })
      this.#server.listen(path, resolve)
    })
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    for (const socket of this.#readers) socket.destroy()
    if (!this.#server.listening) return
    await new Promise<void>(resolve => this.#server.close(() => resolve()))
  }

  #poll(): void {
    for (const bytes of this.#news()) {
      for (const socket of this.#readers) {
        if (socket.writableLength > UNREAD_BYTES) socket.destroy()
        else socket.write(bytes)
      }
    }
  }

  /** What has been appended since the last time. */
  *#news(): Generator<Buffer> {
    let file: number
    try {
      file = openSync(this.#file, 'r')
    } catch {
      return // QEMU has not made it yet
    }
    try {
      for (;;) {
        const bytes = Buffer.alloc(65_536)
        const length = readSync(file, bytes, 0, bytes.length, this.#offset)
        if (length === 0) return
        this.#offset += length
        yield bytes.subarray(0, length)
      }
    } catch {
      return // a disk that cannot be read now: it is looked at again
    } finally {
      closeSync(file)
    }
  }
}
