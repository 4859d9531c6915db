import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  type MachineState,
  migrationHead,
  migrationTail,
  type PageToSend,
  PostcopyFile,
  postcopyDiscard,
  postcopyFinish,
  postcopyHeader,
  postcopyRun,
  ramPages,
  SnapshotParser
} from '../../node/hypervisor/migration-stream.ts'
import { PAGE, pageOf, str, u32 } from './image/support.ts'

/** Block → page → content, undefined for zeros; the last to come of each. */
type Pages = Map<string, Map<number, Buffer | undefined>>

interface Section {
  readonly block: string
  readonly pages: readonly PageToSend[]
}

function write(machine: MachineState, sections: readonly Section[]): Buffer {
  const ram = sections.map(({ block, pages }) => ramPages(machine.ramId, block, pages))
  return Buffer.concat([migrationHead(machine), ...ram, migrationTail(machine.ramId, machine.devices)])
}

function read(bytes: Buffer): { machine: MachineState; pages: Pages } {
  const pages: Pages = new Map()
  const names: string[] = []
  const parser = new SnapshotParser({
    blocks: blocks => {
      for (const { name } of blocks) {
        names.push(name)
        pages.set(name, new Map())
      }
    },
    page: (block, offset, page) => void pages.get(names[block] ?? '')?.set(offset / PAGE, page && Buffer.from(page))
  })
  parser.push(bytes)
  return { machine: parser.end(), pages }
}

const section = (id: number, [name, instance, state]: readonly [string, number, Uint8Array]): Buffer =>
  Buffer.concat([Buffer.of(4), u32(id), str(name), u32(instance), u32(1), state, Buffer.of(0x7e), u32(id)])

const text = fc.string({ unit: fc.constantFrom('a', 'B', '0', ':', '/', '.', '-', ' '), minLength: 1, maxLength: 12 })

/** State that looks like sections and footers is among it. */
const state = fc.array(
  fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc.tuple(fc.nat(300), text).map(([id, name]) => section(id, [name, 0, Buffer.of()])),
    fc.nat(300).map(id => Buffer.concat([Buffer.of(0x7e), u32(id)])),
    fc.constant(Buffer.of(0, 6, 0, 0, 0, 0))
  ),
  { maxLength: 4 }
)

const devices = fc
  .array(fc.tuple(text, fc.nat(0xffffffff), state), { minLength: 1, maxLength: 6 })
  .map(all =>
    Buffer.concat(all.map(([name, instance, parts], i) => section(i + 3, [name, instance, Buffer.concat(parts)])))
  )

const machines: fc.Arbitrary<MachineState> = fc
  .record({
    type: text,
    ramId: fc.nat(0xffffffff),
    ramPages: fc.integer({ min: 1, max: 64 }),
    roms: fc.uniqueArray(fc.tuple(text, fc.integer({ min: 1, max: 8 })), { selector: ([name]) => name, maxLength: 5 }),
    devices
  })
  .map(({ type, ramId, ramPages, roms, ...rest }) => ({
    config: Buffer.concat([Buffer.of(7), u32(type.length), Buffer.from(type)]),
    ramHeader: Buffer.concat([Buffer.of(1), u32(ramId), str('ram'), u32(0), u32(4)]),
    ramId,
    blocks: [{ name: 'pc.ram', length: ramPages * PAGE }, ...roms.map(([name, n]) => ({ name, length: n * PAGE }))],
    ...rest
  }))

/** A machine, and sections with pages of its blocks: in any order, some more than once, some never. */
const streams = machines.chain(machine => {
  const one = fc.constantFrom(...machine.blocks).chain(({ name, length }) =>
    fc.record({
      block: fc.constant(name),
      pages: fc.array(
        fc.record({
          offset: fc.nat(length / PAGE - 1).map(page => page * PAGE),
          bytes: fc.option(fc.nat(1000).map(pageOf), { nil: undefined })
        }),
        { maxLength: 10 }
      )
    })
  )
  return fc.record({ machine: fc.constant(machine), sections: fc.array(one, { maxLength: 8 }) })
})

describe('the writer of migration streams', () => {
  test('is read back as what was written, whatever machine and pages', () => {
    const property = fc.property(streams, ({ machine, sections }) => {
      const expected: Pages = new Map(machine.blocks.map(({ name }) => [name, new Map()]))
      for (const { block, pages } of sections) {
        for (const { offset, bytes } of pages) expected.get(block)?.set(offset / PAGE, bytes && Buffer.from(bytes))
      }
      const found = read(write(machine, sections))
      expect(found.pages).toEqual(expected)
      expect(found.machine.blocks).toEqual(machine.blocks)
      expect(found.machine.ramId).toBe(machine.ramId)
      for (const part of ['config', 'ramHeader', 'devices'] as const) {
        expect(Buffer.from(found.machine[part]).equals(machine[part]), part).toBe(true)
      }
    })
    fc.assert(property, { numRuns: 300 })
  })

  test('names each device once where no state looks like one', () => {
    const parts = [
      ['timer', 0, Buffer.alloc(100)],
      ['0000:00:02.0/virtio-net', 0, Buffer.alloc(3, 0x7e)],
      ['cpu', 1, Buffer.of()]
    ] as const
    const machine = {
      ...(fc.sample(machines, 1)[0] as MachineState),
      devices: Buffer.concat(parts.map((p, i) => section(i, p)))
    }
    const stream = write(machine, []).toString('latin1')
    const described = JSON.parse(stream.slice(stream.lastIndexOf('{"page_size"'))) as object
    expect(described).toEqual({
      page_size: 4096,
      devices: parts.map(([name, instance]) => ({ name, instance_id: instance }))
    })
  })

  test('refuses devices that begin with no section', () => {
    const machine = fc.sample(machines, 1)[0] as MachineState
    for (const bytes of [Buffer.of(), Buffer.of(3), section(3, ['timer', 0, Buffer.of()]).subarray(1)]) {
      expect(() => migrationTail(machine.ramId, bytes)).toThrow(
        expect.objectContaining({ code: 'MIGRATION_STREAM_INVALID' })
      )
    }
  })
})

/** As a restore sends it: `early` sections before the devices, the others behind them. */
function postcopy(machine: MachineState, sections: readonly Section[], early: number): Buffer {
  const ram = sections.map(({ block, pages }) => ramPages(machine.ramId, block, pages))
  const [first, run, finish] = [postcopyHeader(machine), postcopyRun(machine), postcopyFinish(machine.ramId)]
  return Buffer.concat([first, ...ram.slice(0, early), postcopyDiscard(), run, ...ram.slice(early), finish])
}

describe('a post-copy turned into a file', () => {
  test('has devices of a VM that runs, whatever else is in them', () => {
    const { machine, sections } = fc.sample(streams, 1)[0] as { machine: MachineState; sections: Section[] }
    const stateOf = (word: string) => Buffer.concat([u32(word.length + 1), Buffer.from(word.padEnd(100, '\0'))])
    const all = (word: string) =>
      Buffer.concat([
        section(3, ['timer', 0, Buffer.from('\x04\0\0\0\x09\x0bglobalstate\0\0\0\0 paused')]),
        section(4, ['globalstate', 0, stateOf(word)]),
        section(5, ['cpu', 0, Buffer.from('paused')])
      ])
    const file = new PostcopyFile()
    file.push(postcopy({ ...machine, devices: all('paused') }, sections, 0))
    expect(Buffer.from(file.end()).equals(migrationTail(machine.ramId, all('running')))).toBe(true)
  })

  test('is the file that is written of the same machine and pages, wherever chunks end', () => {
    const property = fc.property(streams, fc.nat(8), fc.array(fc.nat(), { maxLength: 30 }), (stream, early, cuts) => {
      const { machine, sections } = stream
      const bytes = postcopy(machine, sections, early)
      const at = [0, ...cuts.map(cut => cut % bytes.length).sort((a, b) => a - b), bytes.length]
      const file = new PostcopyFile()
      const out: Uint8Array[] = []
      for (let i = 1; i < at.length; i++) {
        const chunk = Uint8Array.from(bytes.subarray(at[i - 1], at[i]))
        out.push(...file.push(chunk).map(part => part.slice()))
        chunk.fill(0xa5) // what was kept of it must not change with it
      }
      expect(Buffer.concat([...out, file.end()]).equals(write(machine, sections))).toBe(true)
    })
    fc.assert(property, { numRuns: 200 })
  })

  test('is refused where it ends too soon, or is none', () => {
    const { machine, sections } = fc.sample(streams, 1)[0] as { machine: MachineState; sections: Section[] }
    const bytes = postcopy(machine, sections, 1)
    const end = bytes.length - postcopyFinish(machine.ramId).length
    for (const length of [0, 5, 20, 60, end - 1, end]) {
      const file = new PostcopyFile()
      file.push(bytes.subarray(0, length))
      expect(() => file.end(), `${length} bytes`).toThrow(
        expect.objectContaining({ code: 'MIGRATION_STREAM_TRUNCATED' })
      )
    }
    const wrong = Buffer.from(bytes)
    wrong[0] = 1
    expect(() => new PostcopyFile().push(wrong)).toThrow(expect.objectContaining({ code: 'MIGRATION_STREAM_INVALID' }))
  })
})
