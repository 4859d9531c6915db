/**
 * A migration stream for a QEMU whose RAM is a shared file that holds the RAM already (x-ignore-shared): header, the small
 * blocks (ROMs, tables), devices. It differs from one with RAM in two places, as `migration-stream.ts` says: a subsection
 * of the configuration names the capability, and in the block list an address follows each length. QEMU compares it for
 * blocks that it ignores; that of pc.ram is 0 (the machine maps aliases of it). Checked against 7.2.22. Pure.
 */
import { pausedDevices } from './device-sections.ts'
import { MAIN_BLOCK, type MachineState, PAGE, PAGE_BYTES, SECTION } from './migration-format.ts'
import { footer, migrationTail, nameOf, type PageToSend, ramPages, streamHead, u64 } from './migration-writer.ts'

/** Subsection "configuration/capabilities", version 1, of one capability. */
export const IGNORE_SHARED = Buffer.concat([
  Buffer.of(SECTION.subsection, 26),
  Buffer.from('configuration/capabilities'),
  Buffer.of(0, 0, 0, 1, 0, 0, 0, 1, 15),
  Buffer.from('x-ignore-shared')
])
const ADDRESS_BYTES = 8
const BATCH_PAGES = 64

/** A page of a block other than pc.ram that is not zero. */
export interface SmallPage {
  /** Number of its block. */
  readonly block: number
  readonly offset: number
  readonly bytes: Uint8Array
}

/** The pieces of the stream in their order. When it is loaded the VM stands still. */
export function* devicesStream(machine: MachineState, smallPages: readonly SmallPage[]): Generator<Uint8Array> {
  const { ramId, ramHeader, blocks } = machine
  const total = blocks.reduce((sum, block) => sum + block.length, 0)
  const list = blocks.flatMap(block => [nameOf(block.name), u64(block.length), Buffer.alloc(ADDRESS_BYTES)])
  const setup = [ramHeader, u64(total + PAGE.memSize), ...list, u64(PAGE.eos), footer(ramId)]
  yield Buffer.concat([streamHead(machine), IGNORE_SHARED, ...setup])
  const contents = new Map(smallPages.map(page => [`${page.block}:${page.offset}`, page.bytes]))
  for (const [number, block] of blocks.entries()) {
    if (block.name === MAIN_BLOCK) continue
    for (let offset = 0; offset < block.length; offset += BATCH_PAGES * PAGE_BYTES) {
      const count = Math.min(BATCH_PAGES, (block.length - offset) / PAGE_BYTES)
      // Zeros, too: where nothing is sent QEMU keeps what it has installed itself.
      const pages = Array.from({ length: count }, (_, i): PageToSend => {
        const at = offset + i * PAGE_BYTES
        return { offset: at, bytes: contents.get(`${number}:${at}`) }
      })
      yield ramPages(ramId, block.name, pages)
    }
  }
  yield migrationTail(ramId, pausedDevices(machine.devices))
}
