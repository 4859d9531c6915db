/** All faults that there are, by name. */
import type { Fault } from '../fault.ts'
import { failingDisk, fullDisk, hungDisk, readOnlyDisk, slowDisk } from './disk.ts'
import { badLine, delay, duplicates, jitter, loss } from './line.ts'
import { bridge, cutOff, deaf, mute, partition } from './network.ts'
import { loseAllPower, losePower, loseRackPower } from './power.ts'
import { killAllHosts, killHost, killPeer, killQemu, stopHost, stopPeer, stopQemu } from './processes.ts'
import { registerRot, registerTruncation } from './registers.ts'
import { noDescriptors, shortOfMemory, starved } from './resources.ts'
import { clockAhead, clockBehind, failingSync } from './shim.ts'
import { rot, truncation } from './stored.ts'
import { upgradeRoll } from './upgrade.ts'

const list: readonly Fault[] = [
  [killPeer, killQemu, killHost, killAllHosts, stopPeer, stopQemu, stopHost],
  [cutOff, mute, deaf, partition, bridge],
  [loss, delay, jitter, duplicates, badLine],
  [fullDisk, readOnlyDisk, failingDisk, hungDisk, slowDisk, failingSync],
  [losePower, loseRackPower, loseAllPower],
  [clockAhead, clockBehind, starved, shortOfMemory, noDescriptors],
  [rot, truncation, registerRot, registerTruncation],
  [upgradeRoll]
].flat()

export const FAULTS: ReadonlyMap<string, Fault> = new Map(list.map(fault => [fault.name, fault]))
