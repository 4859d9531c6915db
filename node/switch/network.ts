/**
 * One network as the switch sees it: which NICs are on it, and behind which of them other addresses were heard (a VM that
 * bridges, or has addresses of its own making). The declared address of a NIC is nobody else's. Pure.
 */
import type { PeerId } from '../../protocols/core.ts'

/** A NIC of a VM. */
export interface Station {
  readonly group: string
  readonly vm: string
  /** Its number among the VM's NICs. */
  readonly nic: number
  readonly mac: number
  readonly network: Network
  /** The peer that runs the VM. */
  readonly owner: PeerId | undefined
}

interface Learned {
  readonly station: Station
  heardMs: number
}

/** IEEE 802.1D-2004, table 7-5: the default ageing time. */
const AGEING_MS = 300_000
/** A VM that invents addresses displaces learned ones, and no more than these. A guess. */
const MAX_LEARNED = 4096

export class Network {
  #stations: readonly Station[] = []
  #declared = new Map<number, Station>()
  /** By address; what was heard last stands last. */
  #learned = new Map<number, Learned>()

  get stations(): readonly Station[] {
    return this.#stations
  }

  /** The NICs of `group`, in the place of those it had before. */
  setStations(group: string, stations: readonly Station[]): void {
    this.#stations = [...this.#stations.filter(each => each.group !== group), ...stations]
    this.#declared = new Map(this.#stations.map(each => [each.mac, each]))
    for (const [mac, { station, heardMs }] of this.#learned) {
      if (station.group !== group) continue
      const now = stations.find(({ vm, nic }) => vm === station.vm && nic === station.nic)
      if (now === undefined || this.#declared.has(mac)) this.#learned.delete(mac)
      else this.#learned.set(mac, { station: now, heardMs })
    }
  }

  /** A frame from `mac` has come out of `station`. False: the address is not its to use. */
  admit(station: Station, mac: number, nowMs: number): boolean {
    if (mac === station.mac) return true
    if (isGroupAddress(mac) || this.#declared.has(mac)) return false
    const known = this.#learned.get(mac)
    if (known?.station === station && nowMs - known.heardMs < AGEING_MS / 2) return true
    this.#learned.delete(mac)
    this.#learned.set(mac, { station, heardMs: nowMs })
    if (this.#learned.size > MAX_LEARNED) this.#learned.delete(this.#learned.keys().next().value as number)
    return true
  }

  /** Where `mac` is; undefined: anywhere. */
  find(mac: number, nowMs: number): Station | undefined {
    const declared = this.#declared.get(mac)
    if (declared !== undefined) return declared
    const learned = this.#learned.get(mac)
    return learned !== undefined && nowMs - learned.heardMs < AGEING_MS ? learned.station : undefined
  }

  /** Addresses heard behind a NIC, besides its own. */
  behind(station: Station, nowMs: number): number[] {
    const all = [...this.#learned].filter(([, learned]) => learned.station === station)
    return all.filter(([, { heardMs }]) => nowMs - heardMs < AGEING_MS).map(([mac]) => mac)
  }
}

/** The lowest bit of the first byte. */
const isGroupAddress = (mac: number): boolean => (Math.floor(mac / 2 ** 40) & 1) === 1
