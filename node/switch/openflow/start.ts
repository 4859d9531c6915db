/** From the settings to a switch with a bridge: where the bridge is, whether it will do, and what is missing, with its remedy. */
import { join } from 'node:path'
import type { Config } from '../../../config/schema.ts'
import type { PeerId } from '../../../protocols/core.ts'
import { DiapauseError, UsageError } from '../../errors.ts'
import type { Clock, Log } from '../../ports.ts'
import type { VirtualSwitch } from '../switch.ts'
import { asRoot, vsctl } from './commands.ts'
import { controlSocket } from './control.ts'
import { JoinedSwitch } from './joined-switch.ts'
import { Taps } from './taps.ts'

type Settings = NonNullable<Config['switch']['openFlow']>

/** Where Open vSwitch has its database's socket, it has all others and its pid file (OVS_RUNDIR). */
const DATABASE_SOCKET = /^unix:(.+)\/[^/]+$/
/** Debian's, and that of `ovs-ctl`. */
const RUN_DIR = '/var/run/openvswitch'
/** The tag between bridges. */
const TAG_BYTES = 4
/** What guests use where nobody tells them otherwise. */
const ETHERNET_MTU_BYTES = 1500

export interface JoinOptions {
  readonly settings: Settings
  readonly self: PeerId
  /** Made with `bridged`. */
  readonly own: VirtualSwitch
  readonly nameOf: (peer: PeerId) => string | undefined
  readonly clock: Clock
  readonly log: Log
}

/** UsageErrors whose codes begin with OPENFLOW_. VMs of an earlier run of this peer must be gone. */
export async function joinBridge(options: JoinOptions): Promise<JoinedSwitch> {
  const { settings, self, own, nameOf, clock, log } = options
  const { bridge, database, towards } = settings
  const runDir = DATABASE_SOCKET.exec(database)?.[1] ?? RUN_DIR
  const { control, management = join(runDir, `${bridge}.mgmt`) } = settings
  try {
    await checkFailMode(settings)
    await claim(settings, self)
    const mtuBytes = await guestMtu(settings, log)
    const taps = await Taps.open({ peer: self, bridge, database, mtuBytes })
    const parts = {
      address: management,
      control: () => (control === undefined ? controlSocket(runDir) : Promise.resolve(control)),
      clock,
      log,
      keeper: () => own.keeper()
    }
    return await JoinedSwitch.open({ self, own, bridge: parts, taps, log, towards, nameOf })
  } catch (error) {
    if (error instanceof UsageError || !(error instanceof DiapauseError)) throw error
    const where = `switch.openFlow (bridge ${bridge}, ${management})`
    // Who speaks with the bridge's socket does not know its name.
    const message = error.message.replaceAll('BRIDGE', bridge)
    throw new UsageError(error.code, `${where}: ${message}${remedyOf(error)}`, { cause: error })
  }
}

/** For what is said where nobody can do anything but wait, once a peer runs. */
function remedyOf({ code, cause }: DiapauseError): string {
  if (cause instanceof Error && 'code' in cause && cause.code === 'EACCES') {
    return ': run the peer as root, or as a user who may use Open vSwitch'
  }
  return code === 'OPENFLOW_DOWN' ? ': start ovs-vswitchd, or set switch.openFlow.management' : ''
}

/** A bridge of fail mode standalone forwards like a switch what no entry of ours fits: past every cut and every fence. */
async function checkFailMode({ bridge, database }: Settings): Promise<void> {
  const mode = (await vsctl(database, ['get-fail-mode', bridge], 'no wait')).trim()
  if (mode === 'secure') return
  throw new UsageError(
    'OPENFLOW_FAIL_MODE',
    `bridge ${bridge} forwards by itself what no flow entry fits: ${asRoot(`ovs-vsctl set-fail-mode ${bridge} secure`)}`
  )
}

/** Entries of two peers would take each other away. */
async function claim({ bridge, database }: Settings, self: PeerId): Promise<void> {
  const key = 'external_ids:diapause'
  const owner = (await vsctl(database, ['--if-exists', 'get', 'Bridge', bridge, key], 'no wait'))
    .trim()
    .replaceAll('"', '')
  if (owner === self) return
  if (owner === '') return void (await vsctl(database, ['set', 'Bridge', bridge, `${key}=${self}`], 'no wait'))
  throw new UsageError(
    'OPENFLOW_TAKEN',
    `bridge ${bridge} is peer ${owner}'s, and a bridge serves one: make another, or, where that peer is gone, ${asRoot(`ovs-vsctl remove Bridge ${bridge} external_ids diapause`)}`
  )
}

/** The largest packet that guests may send, by the ways to other bridges. */
async function guestMtu({ database, towards }: Settings, log: Log): Promise<number> {
  const names = typeof towards === 'string' ? [towards] : Object.values(towards)
  const mtus = await Promise.all(
    names.map(async name => {
      const text = await vsctl(database, ['--if-exists', 'get', 'Interface', name, 'mtu'], 'no wait')
      return Number.parseInt(text, 10) // of a tunnel, [ ]: the kernel's routes decide
    })
  )
  const least = Math.min(...mtus.filter(mtu => !Number.isNaN(mtu)), Number.POSITIVE_INFINITY)
  if (least < ETHERNET_MTU_BYTES + TAG_BYTES) {
    const guests = least - TAG_BYTES
    log.warn(
      { towards, mtuBytes: least },
      `frames are ${TAG_BYTES} bytes longer between bridges: give the ways an MTU of ${ETHERNET_MTU_BYTES + TAG_BYTES} (ip link set NAME mtu …), or guests one of at most ${guests}`
    )
  }
  return Number.isFinite(least) ? Math.max(least - TAG_BYTES, ETHERNET_MTU_BYTES) : ETHERNET_MTU_BYTES
}
