/**
 * Loaded into a peer before its program (`node --import`): writes down every frame that passes the socket of a VM, in the
 * order in which it does, and when the VM's colour turns. It asks the switch for nothing else: no numbers, no counts, no
 * word of what was held or recorded. What it writes is what a tap on each VM's cable and a bell at each cut would give.
 * And when a VM stands still for its cut, QEMU is asked how many frames it has put into the guest's RAM: what was written
 * to a socket need not have come so far. (That makes each pause longer by one question.)
 *
 * The file is `frames-PID.log` beside the peer's config file. What has been seen is with the kernel before any frame that
 * the VM sent leaves this process, so that also a peer that is killed has told all that others know from it.
 */
import { openSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { isMainThread } from 'node:worker_threads'
import { crc32 } from 'node:zlib'
import { QmpClient } from '../../node/hypervisor/qmp.ts'
import { isRecord } from '../../node/hypervisor/qmp-protocol.ts'
import { Fabric } from '../../node/switch/fabric.ts'
import { type LinkEvents, NicLink } from '../../node/switch/link.ts'
import { VmPort } from '../../node/switch/port.ts'
import { cutLate } from './cut-checker-late.ts'
import { type Attachment, type Kind, RECORD_BYTES, stationAt, writeRecord } from './cut-checker-log.ts'

const CHUNK_BYTES = 1 << 16
/** Bytes of the length that stands before a frame. */
const PREFIX_BYTES = 4
/** The queue in which a VM's only NIC receives. It tells how far it came since the guest's driver began, modulo 65,536. */
const RECEIVES = { path: '/machine/peripheral-anon/device[0]/virtio-backend', queue: 0 }

const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6

class Recorder {
  readonly #file: number
  readonly #chunk = Buffer.alloc(CHUNK_BYTES)
  #used = 0
  #ports = 0
  readonly #byPath = new Map<string, number>()
  readonly #byPort = new WeakMap<VmPort, number>()

  constructor(path: string) {
    this.#file = openSync(path, 'a', 0o600)
  }

  attach(nicPath: string, about: Attachment): number {
    const port = this.#ports++
    this.#byPath.set(nicPath, port)
    const json = Buffer.from(JSON.stringify(about))
    this.#add('attach', port, json.length, 0)
    this.flush()
    writeSync(this.#file, json)
    return port
  }

  name(port: VmPort, number: number): void {
    this.#byPort.set(port, number)
  }

  frame(kind: 'in' | 'out', nicPath: string, packet: Uint8Array): void {
    const port = this.#byPath.get(nicPath)
    if (port === undefined) return
    const frame = packet.subarray(PREFIX_BYTES)
    this.#add(kind, port, stationAt(frame, kind === 'out' ? 0 : 6), crc32(frame))
  }

  turn(of: VmPort, colour: number, cut: boolean): void {
    const port = this.#byPort.get(of)
    if (port !== undefined) this.#add('turn', port, 0, colour, cut)
  }

  taken(of: VmPort, frames: number): void {
    const port = this.#byPort.get(of)
    if (port !== undefined) this.#add('taken', port, 0, frames)
  }

  flush(): void {
    if (this.#used > 0) writeSync(this.#file, this.#chunk, 0, this.#used)
    this.#used = 0
  }

  #add(kind: Kind, port: number, station: number, value: number, cut = false): void {
    if (this.#used + RECORD_BYTES > CHUNK_BYTES) this.flush()
    writeRecord(this.#chunk, this.#used, { kind, port, station, value, cut, atMs: monotonicMs() })
    this.#used += RECORD_BYTES
  }
}

function tapSockets(recorder: Recorder): void {
  const { listen } = NicLink
  const { write } = NicLink.prototype
  NicLink.listen = (path, clock, events) => {
    const tapped: LinkEvents = {
      packet: packet => {
        recorder.frame('out', path, packet)
        events.packet(packet)
      },
      writable: writable => events.writable(writable),
      broken: error => events.broken(error),
      burst: cut => events.burst(cut)
    }
    return listen.call(NicLink, path, clock, tapped)
  }
  NicLink.prototype.write = function (packets, ...rest) {
    for (const packet of packets) recorder.frame('in', this.path, packet)
    write.call(this, packets, ...rest)
  }
}

function watchColours(recorder: Recorder): void {
  const { attach, flush } = Fabric.prototype
  const { turn, abandon } = VmPort.prototype
  Fabric.prototype.attach = async function (vm, colour, nicPath) {
    const number = recorder.attach(nicPath, { vm, generation: this.generation, colour })
    const port = await attach.call(this, vm, colour, nicPath)
    recorder.name(port, number)
    return port
  }
  Fabric.prototype.flush = function () {
    recorder.flush()
    flush.call(this)
  }
  VmPort.prototype.turn = function (epoch) {
    const before = this.sender.colour
    const counts = turn.call(this, epoch) // what it still delivers, it delivers before the turn
    if (this.sender.colour > before) recorder.turn(this, epoch, true)
    return counts
  }
  VmPort.prototype.abandon = function (epoch) {
    // Frames of the new colour may be delivered at once.
    if (epoch > this.sender.colour) recorder.turn(this, epoch, false)
    return abandon.call(this, epoch)
  }
}

/** A VM that QEMU does not tell of has no `taken` before its cut. */
function askQemu(recorder: Recorder): void {
  const { open } = QmpClient
  const { drained } = VmPort.prototype
  /** By VM, the newest: a peer has one of each. */
  const clients = new Map<string, QmpClient>()
  QmpClient.open = async (socket, options) => {
    const client = await open.call(QmpClient, socket, options)
    const answer = await client.command('query-name').catch(() => undefined)
    const vm = isRecord(answer) ? /[^:]+$/.exec(String(answer.name))?.[0] : undefined
    if (vm !== undefined) clients.set(vm, client)
    return client
  }
  VmPort.prototype.drained = async function () {
    await drained.call(this)
    const answer = await clients
      .get(this.vm)
      ?.command('x-query-virtio-queue-status', RECEIVES)
      .catch(() => undefined)
    if (isRecord(answer) && typeof answer['used-idx'] === 'number') recorder.taken(this, answer['used-idx'])
  }
}

if (isMainThread) {
  const configFile = process.argv[process.argv.indexOf('--config') + 1] ?? ''
  const recorder = new Recorder(join(dirname(configFile), `frames-${process.pid}.log`))
  tapSockets(recorder)
  watchColours(recorder)
  askQemu(recorder)
  cutLate()
  process.on('exit', () => recorder.flush())
}
