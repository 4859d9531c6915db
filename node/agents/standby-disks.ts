/**
 * The disks of the image that a standby copy is of, for a hypervisor that has them open from the beginning: it reads a little of
 * each when it starts (where the disk's geometry is looked for), and all else when it goes on.
 */
import type { BlockSource, Restore } from '../ports.ts'

export type DisksOfImage = Pick<Restore, 'disks' | 'closeDisks'>

export class StandbyDisks {
  readonly #current = Promise.withResolvers<DisksOfImage>()
  #shown: DisksOfImage | undefined
  /** As of one image that stays. Reads wait until there is any. */
  readonly image: DisksOfImage

  /** `sizes`: in bytes. */
  constructor(sizes: readonly number[]) {
    this.#current.promise.catch(() => {}) // nobody may read
    this.image = {
      disks: sizes.map((bytes, disk) => ({
        bytes,
        read: async (...range) => await (await this.#disk(disk)).read(...range),
        extents: async (...range) => await (await this.#disk(disk)).extents(...range)
      })),
      closeDisks: async () => await this.#shown?.closeDisks()
    }
  }

  /** From now on they are those of that image. */
  show(image: DisksOfImage): void {
    this.#shown = image
    this.#current.resolve(image)
  }

  /** There will be none: whoever waits is told. */
  end(why: Error): void {
    this.#current.reject(why)
  }

  async #disk(disk: number): Promise<BlockSource> {
    const { disks } = this.#shown ?? (await this.#current.promise)
    return disks[disk] as BlockSource
  }
}
