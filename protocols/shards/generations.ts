/**
 * Which generation of a VM may still write. Pure. A peer that was cut off may go on shipping shards of a generation that
 * has been replaced; whoever knows the newer one refuses the older. This saves work and space; what is *restored* is
 * decided by the group's register alone.
 *
 * Known from the group's record, and forgotten at a restart until that has come again. Not from what is put or stored: whoever puts
 * a stream of a generation that will never be would so keep the VM from making epochs, for good.
 */

/** `GROUP/VM/GENERATION/EPOCH` (node/ports.ts, StreamId). */
export interface StreamName {
  readonly group: string
  readonly vm: string
  readonly generation: number
  readonly epoch: number
}

const NAME = /^([A-Za-z0-9._-]{1,80})\/([A-Za-z0-9._-]{1,80})\/(\d{1,15})\/(\d{1,15})$/

/** undefined for anything that is not a stream's name. */
export function parseStreamName(stream: string): StreamName | undefined {
  const [, group, vm, generation, epoch] = NAME.exec(stream) ?? []
  if (group === undefined || vm === undefined) return undefined
  return { group, vm, generation: Number(generation), epoch: Number(epoch) }
}

/** VMs that are remembered; far more than a cluster has, few enough for memory. */
const MAX_VMS = 100_000

export class Generations {
  readonly #ofRecord = new Map<string, number>()

  /** `generation` is that of the VM's record. */
  observe(group: string, vm: string, generation: number): void {
    const key = `${group}/${vm}`
    if (!this.#ofRecord.has(key) && this.#ofRecord.size >= MAX_VMS) {
      this.#ofRecord.delete(this.#ofRecord.keys().next().value ?? '')
    }
    this.#ofRecord.set(key, generation)
  }

  /** Any where the VM's record is not known. */
  admits({ group, vm, generation }: StreamName): boolean {
    return generation >= (this.#ofRecord.get(`${group}/${vm}`) ?? 0)
  }
}
