/** All faults that there are, by name. */
import type { Fault } from '../fault.ts'
import { bridge, cutOff, deaf, mute, partition } from './network.ts'
import { killAllHosts, killHost, killPeer, killQemu, stopHost, stopPeer, stopQemu } from './processes.ts'

const list: readonly Fault[] = [
  [killPeer, killQemu, killHost, killAllHosts, stopPeer, stopQemu, stopHost],
  [cutOff, mute, deaf, partition, bridge]
].flat()

export const FAULTS: ReadonlyMap<string, Fault> = new Map(list.map(fault => [fault.name, fault]))
