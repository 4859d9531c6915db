import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { DiapauseError, hasCode } from '../../node/errors.ts'
import {
  type MachineState,
  postcopyDiscard,
  postcopyFinish,
  postcopyHeader,
  postcopyPages,
  postcopyRun,
  ReturnPath,
  SnapshotParser,
  STREAM_LIMITS
} from '../../node/hypervisor/migration-stream.ts'
import {
  deviceStream,
  fakeMachine,
  PAGE,
  pageOf,
  readPostcopy,
  readWholeSnapshot,
  snapshotStream,
  str,
  u32,
  u64
} from './image/support.ts'

const SMALL = snapshotStream(fakeMachine(new Map([3, 4, 5, 200].map(page => [page, pageOf(page)])), 1))

function parse(chunks: readonly Uint8Array[]): {
  machine: MachineState
  pages: Map<string, Map<number, Buffer | undefined>>
} {
  const pages = new Map<string, Map<number, Buffer | undefined>>()
  const names: string[] = []
  const parser = new SnapshotParser({
    blocks(blocks) {
      for (const block of blocks) {
        names.push(block.name)
        pages.set(block.name, new Map())
      }
    },
    page(block, offset, bytes) {
      pages.get(names[block] ?? '')?.set(offset, bytes && Buffer.from(bytes))
    }
  })
  for (const chunk of chunks) parser.push(chunk)
  return { machine: parser.end(), pages }
}

function cutAt(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const at = [0, ...cuts.map(cut => cut % bytes.length).sort((a, b) => a - b), bytes.length]
  return at.slice(1).map((end, i) => bytes.subarray(at[i], end))
}

describe('the parser of QEMU snapshots', () => {
  test('reads a stream in any chunks as the whole-buffer reading does', () => {
    const property = fc.property(
      fc.uniqueArray(fc.nat(255), { maxLength: 40 }),
      fc.integer({ min: 1, max: 90 }),
      fc.array(fc.nat(), { maxLength: 60 }),
      (written, perSection, cuts) => {
        const bytes = snapshotStream(fakeMachine(new Map(written.map(page => [page, pageOf(page)])), 1), perSection)
        const slow = readWholeSnapshot(bytes)
        const { machine, pages } = parse(cutAt(bytes, cuts))
        expect(pages).toEqual(slow.pages)
        expect(machine.blocks).toEqual(slow.blocks)
        expect(Buffer.from(machine.config)).toEqual(slow.config)
        expect(Buffer.from(machine.devices)).toEqual(slow.devices)
      }
    )
    fc.assert(property, { numRuns: 60 })
  })

  test('reads a stream that comes byte by byte', () => {
    const { machine, pages } = parse(Array.from(SMALL, byte => Uint8Array.of(byte)))
    expect(pages).toEqual(readWholeSnapshot(SMALL).pages)
    expect(machine.ramId).toBe(2)
  })

  test('reads a stream of devices alone, in any chunks, as the same machine without pages of its RAM', () => {
    const machine = fakeMachine(new Map([[3, pageOf(3)]]), 1)
    const whole = parse([snapshotStream(machine)])
    const bytes = deviceStream(machine)
    const plain = (state: MachineState) => ({
      ...state,
      config: [...state.config],
      ramHeader: [...state.ramHeader],
      devices: [...state.devices]
    })
    fc.assert(
      fc.property(fc.array(fc.nat(), { maxLength: 60 }), cuts => {
        const alone = parse(cutAt(bytes, cuts))
        expect(plain(alone.machine)).toEqual(plain(whole.machine))
        expect(alone.pages.get('pc.ram')?.size).toBe(0)
        expect(alone.pages.get('pc.bios')).toEqual(whole.pages.get('pc.bios'))
      }),
      { numRuns: 100 }
    )
  })

  test('refuses a capability that it does not know', () => {
    const bytes = deviceStream(fakeMachine(new Map(), 1))
    bytes.write('y', bytes.indexOf('x-ignore-shared'))
    expect(() => parse([bytes])).toThrow(expect.objectContaining({ code: 'MIGRATION_STREAM_UNSUPPORTED' }))
  })

  test('hands on pages as views of the chunk, without a copy', () => {
    let views = 0
    const chunk = Uint8Array.from(SMALL)
    const page = (_: number, __: number, bytes: Uint8Array | undefined) => {
      if (bytes?.buffer === chunk.buffer) views++
    }
    new SnapshotParser({ blocks() {}, page }).push(chunk)
    expect(views).toBe(5)
  })

  test('says that a stream is truncated, wherever it ends', () => {
    for (let end = 0; end < SMALL.length; end += end < 300 || end > SMALL.length - 120 ? 1 : 997) {
      expect(() => parse([SMALL.subarray(0, end)]), `ends at ${end}`).toThrow(
        expect.objectContaining({ code: 'MIGRATION_STREAM_TRUNCATED', details: { offset: end } })
      )
    }
  })

  test('names the byte at which a stream is wrong, whatever the chunks', () => {
    const sectionAt = SMALL.indexOf(u64(3 * PAGE + 0x28)) // a page of the block named before
    const changes: readonly (readonly [number, number, string, number])[] = [
      [0, 0, 'INVALID', 0],
      [sectionAt + 7, 0x3f, 'UNSUPPORTED', sectionAt],
      [sectionAt + 2, 1, 'INVALID', sectionAt]
    ]
    for (const [at, value, kind, offset] of changes) {
      const bytes = Buffer.from(SMALL)
      bytes[at] = value
      const error = expect.objectContaining({ code: `MIGRATION_STREAM_${kind}`, details: { offset } })
      for (const cuts of [[], [at], [at - 1, at + 1], [offset + 1, offset + 7]]) {
        expect(() => parse(cutAt(bytes, cuts)), `byte ${at}, ${cuts.join(' ')}`).toThrow(error)
      }
      expect(() => parse([bytes])).toThrow(new RegExp(`at byte ${offset}`))
    }
  })

  test('refuses devices that are not those of their description', () => {
    const [cpu, nic] = [SMALL.indexOf('cpu') - 6, SMALL.indexOf('nic') - 6]
    const end = SMALL.lastIndexOf('\0\x06')
    const wrong = (change: (bytes: Buffer) => void) => () => {
      const bytes = Buffer.from(SMALL)
      change(bytes)
      parse([bytes])
    }
    const at = (offset: number) => expect.objectContaining({ code: 'MIGRATION_STREAM_INVALID', details: { offset } })
    expect(wrong(bytes => bytes.write('nix', nic + 6))).toThrow(at(cpu + 1))
    expect(wrong(bytes => (bytes[nic] = 3))).toThrow(at(cpu + 1))
    expect(wrong(bytes => bytes.write('gpu', cpu + 6))).toThrow(at(cpu))
    expect(wrong(bytes => (bytes[nic + 12] = 9))).toThrow(at(cpu + 1))
    expect(wrong(bytes => (bytes[end - 5] = 0))).toThrow(at(end))
    expect(wrong(bytes => bytes.write('[', end + 6))).toThrow(at(end))
    expect(wrong(bytes => bytes.write('devixes', bytes.indexOf('devices')))).toThrow(at(end))
  })

  test('refuses a device before the first that is described', () => {
    const machine = fakeMachine(new Map(), 1)
    const nic = machine.devices.subarray(machine.devices.indexOf('nic') - 6)
    const bytes = snapshotStream({ ...machine, devices: Buffer.concat([nic, machine.devices]) })
    const error = expect.objectContaining({ details: { offset: bytes.indexOf(nic) } })
    expect(() => parse([bytes])).toThrow(error)
  })

  test('reads a machine whose guest made the state of a device look like the begin of another', () => {
    const machine = fakeMachine(new Map(), 1)
    const nic = machine.devices.subarray(machine.devices.indexOf('nic') - 6)
    const devices = Buffer.concat([machine.devices.subarray(0, 17), nic.subarray(0, 20), machine.devices.subarray(17)])
    expect(Buffer.from(parse([snapshotStream({ ...machine, devices })]).machine.devices)).toEqual(devices)
  })

  test('answers bytes that were changed with a coded error or a result, never with anything else', () => {
    const property = fc.property(
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 6 }),
      fc.array(fc.nat(), { maxLength: 8 }),
      (changes, cuts) => {
        const bytes = Buffer.from(SMALL)
        for (const [at, value] of changes) bytes[at % 2 ? at % 200 : at % bytes.length] = value
        try {
          parse(cutAt(bytes, cuts))
        } catch (error) {
          expect(error).toBeInstanceOf(DiapauseError)
          expect((error as DiapauseError).code).toMatch(/^MIGRATION_STREAM_/)
        }
      }
    )
    fc.assert(property, { numRuns: 500 })
  })

  test.each([
    ['a stream of another version', SMALL, 7, 4, 'UNSUPPORTED'],
    ['what is no stream', SMALL, 0, 0, 'INVALID'],
    ['a RAM section of another version', SMALL, 8 + 19 + 16, 5, 'UNSUPPORTED'],
    ['a compressed page', SMALL, SMALL.indexOf(u64(3 * PAGE + 0x28)) + 6, 0x31, 'UNSUPPORTED']
  ])('refuses %s by name', (_, bytes, at, value, code) => {
    const changed = Buffer.from(bytes)
    changed[at] = value
    expect(() => parse([changed])).toThrow(expect.objectContaining({ code: `MIGRATION_STREAM_${code}` }))
  })

  test('refuses a page outside of its block and a block that comes twice', () => {
    const head = SMALL.subarray(0, SMALL.indexOf(u64((1 << 20) + 4 * PAGE + 4)))
    const list = (...blocks: Buffer[]) => Buffer.concat([head, u64(2 * PAGE + 4), ...blocks])
    const twice = list(str('a'), u64(PAGE), str('a'), u64(PAGE))
    expect(() => parse([twice])).toThrow(expect.objectContaining({ code: 'MIGRATION_STREAM_INVALID' }))
    const outside = Buffer.concat([list(str('a'), u64(2 * PAGE)), u64(2 * PAGE + 2), str('a'), Buffer.of(0)])
    expect(() => parse([outside])).toThrow(/behind the end/)
  })

  test('keeps no more device state than its limit', () => {
    const devicesAt = SMALL.length - 120
    const parser = new SnapshotParser({ blocks() {}, page() {} })
    parser.push(SMALL.subarray(0, devicesAt + 60))
    const chunk = new Uint8Array(4 << 20)
    const flood = () => {
      for (let sent = 0; sent <= STREAM_LIMITS.deviceBytes; sent += chunk.length) parser.push(chunk)
    }
    expect(flood).toThrow(expect.objectContaining({ code: 'MIGRATION_STREAM_LIMIT' }))
  })
})

describe('the source of a post-copy', () => {
  const { machine } = parse([SMALL])
  const pages = [
    { offset: 0, bytes: undefined },
    { offset: 3 * PAGE, bytes: pageOf(3) },
    { offset: 9 * PAGE, bytes: undefined }
  ]

  test('writes what a target reads: header, blocks, discard before run, pages, the end', () => {
    const sent = readPostcopy(
      Buffer.concat([
        postcopyHeader(machine),
        postcopyDiscard(),
        postcopyRun(machine),
        postcopyPages(machine.ramId, 'pc.ram', pages),
        postcopyPages(machine.ramId, 'pc.ram', []),
        postcopyFinish(machine.ramId)
      ])
    )
    expect(sent.commands).toEqual(['command 1', 'command 3', 'command 6', 'command 7'])
    expect(sent.devices).toEqual(Buffer.from(machine.devices))
    expect([...sent.ram.keys()]).toEqual(['pc.ram', 'pc.bios'])
    expect(sent.ram.get('pc.ram')).toEqual(
      new Map(pages.map(page => [page.offset / PAGE, page.bytes ?? Buffer.alloc(PAGE)]))
    )
  })

  test('writes offsets above 4 GiB', () => {
    const offset = 5 * 2 ** 32 + 7 * PAGE
    const bytes = Buffer.from(postcopyPages(2, 'pc.ram', [{ offset, bytes: undefined }]))
    expect(Number(bytes.readBigUInt64BE(5))).toBe(offset + 2)
  })
})

describe('the return path', () => {
  const message = (type: number, body: Buffer) =>
    Buffer.concat([Buffer.of(0, type), Buffer.of(body.length >> 8, body.length & 255), body])
  const events = (chunks: readonly Uint8Array[]): string[] => {
    const seen: string[] = []
    const reader = new ReturnPath({
      pages: (block, offset, length) => seen.push(`${block} ${offset} ${length}`),
      shut: status => seen.push(`shut ${status}`),
      pong: value => seen.push(`pong ${value}`)
    })
    for (const chunk of chunks) reader.push(chunk)
    return seen
  }
  const TALK = Buffer.concat([
    message(2, u32(77)),
    message(3, Buffer.concat([u64(8 * PAGE), u32(PAGE), str('pc.ram')])),
    message(4, Buffer.concat([u64(2 ** 33), u32(2 * PAGE)])),
    message(1, u32(0))
  ])

  test('reads pongs, requests and the end in any chunks', () => {
    const expected = ['pong 77', 'pc.ram 32768 4096', 'pc.ram 8589934592 8192', 'shut 0']
    const property = fc.property(fc.array(fc.nat(), { maxLength: 20 }), cuts => {
      expect(events(cutAt(TALK, cuts))).toEqual(expected)
    })
    fc.assert(property)
  })

  test('refuses unknown messages, wrong lengths and a request without a block', () => {
    for (const bytes of [
      message(9, u32(0)),
      message(1, u64(0)),
      message(4, Buffer.alloc(12)),
      message(3, Buffer.concat([Buffer.alloc(8, 0xff), u32(PAGE), str('pc.ram')])),
      Buffer.of(0, 2, 255, 255)
    ]) {
      expect(() => events([bytes])).toThrow(expect.objectContaining({ code: 'MIGRATION_STREAM_RETURN_PATH' }))
    }
  })

  test('answers any bytes with events or a coded error', () => {
    const property = fc.property(fc.uint8Array({ maxLength: 400 }), bytes => {
      try {
        events([bytes])
      } catch (error) {
        expect(hasCode(error, 'MIGRATION_STREAM_RETURN_PATH')).toBe(true)
      }
    })
    fc.assert(property, { numRuns: 300 })
  })
})
