/**
 * Room for the RAM of VMs that start, promised before memory is taken for it. Who makes room holds on to what it has asked for meanwhile:
 * whoever comes later makes room of its own. Pure but for what it is given.
 */

interface RoomPromise {
  readonly bytes: number
  /** There is room for it: all others leave that alone, also those that came before. */
  given: boolean
}

export class RamRoom {
  /** In the order in which they came. */
  readonly #promises = new Set<RoomPromise>()

  /**
   * Resolves with what takes the promise back. `requireRoom` throws where there is less than `bytes` beside the bytes `promised`;
   * it is asked again after `makeRoom`, and rejects this then.
   */
  async promise(
    bytes: number,
    requireRoom: (bytes: number, promised: number) => void,
    makeRoom?: (bytes: number) => Promise<void>
  ): Promise<() => void> {
    const own: RoomPromise = { bytes, given: false }
    this.#promises.add(own)
    try {
      try {
        requireRoom(bytes, this.#othersThan(own))
      } catch (error) {
        if (makeRoom === undefined) throw error
        await makeRoom(bytes)
        requireRoom(bytes, this.#othersThan(own))
      }
      own.given = true
      return () => void this.#promises.delete(own)
    } finally {
      if (!own.given) this.#promises.delete(own)
    }
  }

  /** Those that wait behind it do not count: else of two that make room at once neither would have any. */
  #othersThan(own: RoomPromise): number {
    let [bytes, isAhead] = [0, true]
    for (const each of this.#promises) {
      if (each === own) isAhead = false
      else if (isAhead || each.given) bytes += each.bytes
    }
    return bytes
  }
}
