/**
 * Joins a socket of the switch with the outside: a QEMU without a machine, in which a hub connects the socket with a TAP
 * device or with QEMU's user-mode network. The TAP is on a bridge of the operator's and belongs to the peer's user, so
 * that no privilege is needed here; user mode needs nothing at all, and lets VMs out but nobody in (NAT and DHCP, 10.0.2.0/24).
 */
import { readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { messageOf } from '../errors.ts'
import type { Clock, Log } from '../ports.ts'
import { escapeComma, guestName } from './command-line.ts'
import type { QemuProgram } from './confinement.ts'
import { type QemuProcess, spawnQemu } from './process.ts'

/** `user`, or `tap:` and the name of a TAP device. */
export type UplinkKind = string

export interface RelayOptions {
  readonly program: string | QemuProgram
  /** Marks it as this peer's, so that one that outlived its peer is found. */
  readonly peer: string
  readonly kind: UplinkKind
  /** The switch listens there. */
  readonly socketPath: string
  readonly clock: Clock
  readonly log: Log
}

/** Before it is started again. A guess. */
const RESTART_MS = 2_000
/** No VM has this name: names begin with a letter or digit. */
const RELAY = '.uplink'

/** Runs until `stop`; a relay that ends is started again. */
export class UplinkRelay {
  readonly #options: RelayOptions
  #process: QemuProcess | undefined
  #stopped = false
  #cancel: () => void = () => {}

  constructor(options: RelayOptions) {
    this.#options = options
  }

  start(): void {
    this.#run().catch((error: unknown) => this.#restart(messageOf(error)))
  }

  stop(): void {
    this.#stopped = true
    this.#cancel()
    this.#process?.kill()
  }

  async #run(): Promise<void> {
    const { program, log, kind } = this.#options
    await warnOfMissingTap(kind, log)
    // The operator's TAP may be of another user than root. It has no RAM, and opens no file of others.
    const purpose = { guest: false, tap: tapOf(kind) !== undefined, files: [dirname(this.#options.socketPath)] }
    const started = await spawnQemu(program, relayArguments(this.#options), undefined, purpose)
    if (this.#stopped) return started.kill()
    this.#process = started
    log.info({ uplink: kind, pid: started.pid }, 'the uplink is there')
    const { reason } = await started.exited
    this.#restart(reason)
  }

  #restart(reason: string): void {
    if (this.#stopped) return
    const { clock, log, kind } = this.#options
    log.error({ uplink: kind, reason }, 'the uplink has ended and is started again: is switch.uplink right?')
    this.#cancel = clock.after(RESTART_MS, () => this.start())
  }
}

const tapOf = (kind: UplinkKind): string | undefined =>
  kind.startsWith('tap:') ? kind.slice('tap:'.length) : undefined

/** As root QEMU makes the device that it does not find: on no bridge, and gone with QEMU. VMs would speak to nobody. */
async function warnOfMissingTap(kind: UplinkKind, log: Log): Promise<void> {
  const tap = tapOf(kind)
  if (tap === undefined) return
  // And not /sys/class/net: that may be of another network namespace than this process.
  const devices = await readFile('/proc/self/net/dev', 'utf8').catch(() => undefined)
  if (devices === undefined || devices.split('\n').some(line => line.trim().startsWith(`${tap}:`))) return
  log.warn(
    { uplink: kind },
    `there is no TAP device ${tap}: QEMU makes it where it may, on no bridge. Put it on one, as root: ip link set ${tap} master BRIDGE up`
  )
}

export function relayArguments({
  peer,
  kind,
  socketPath
}: Pick<RelayOptions, 'peer' | 'kind' | 'socketPath'>): string[] {
  const tap = tapOf(kind)
  return [
    ['-name', `guest=${escapeComma(guestName(peer, RELAY))}`],
    ['-machine', 'none', '-no-user-config', '-nodefaults', '-display', 'none'],
    [
      '-netdev',
      tap === undefined ? 'user,id=outside' : `tap,id=outside,ifname=${escapeComma(tap)},script=no,downscript=no`
    ],
    ['-netdev', `stream,id=inside,server=off,addr.type=unix,addr.path=${escapeComma(socketPath)}`],
    ['-netdev', 'hubport,id=outside-port,hubid=0,netdev=outside'],
    ['-netdev', 'hubport,id=inside-port,hubid=0,netdev=inside']
  ].flat()
}
