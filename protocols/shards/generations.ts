/**
 * Which generation of a VM may still write. Pure. A peer that was cut off may go on shipping shards of a generation that
 * has been replaced; whoever has seen the newer one refuses the older. This saves work and space; what is *restored* is
 * decided by the group's register alone.
 *
 * Known from streams that are here, from puts, and from `observe` (the group's record). Forgotten at a restart where no
 * stream of the newer generation is here: then the register still decides.
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
  readonly #newest = new Map<string, number>()

  /** The newest generation of the VM that was seen, 0 where none was. */
  newest(group: string, vm: string): number {
    return this.#newest.get(`${group}/${vm}`) ?? 0
  }

  observe(group: string, vm: string, generation: number): void {
    const key = `${group}/${vm}`
    if (generation <= (this.#newest.get(key) ?? 0)) return
    if (this.#newest.size >= MAX_VMS) this.#newest.delete(this.#newest.keys().next().value ?? '')
    this.#newest.set(key, generation)
  }

  /** True where `name` is of the newest generation, which it may be the first to show. */
  admit(name: StreamName): boolean {
    if (name.generation < this.newest(name.group, name.vm)) return false
    this.observe(name.group, name.vm, name.generation)
    return true
  }
}
