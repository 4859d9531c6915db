import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { VirtualSwitch } from '../../node/switch/switch.ts'
import { cut, frameOf, idOf, idsIn, pieceOf, quiet, until } from './switch-support.ts'
import { OWNERS, SwitchWorld } from './switch-world.ts'

const MEMORY_BYTES = 1 << 20
const FRAME_BYTES = 9014
/** 18 MB: far more than the memory that they may have. */
const FRAMES = 2000
const IDS = Array.from({ length: FRAMES }, (_, id) => id)

let world: SwitchWorld
let directory: string

async function open(room: Partial<{ directory: string; diskBytes: number }> = {}): Promise<void> {
  world = await SwitchWorld.open({ room: { directory, memoryBytes: MEMORY_BYTES, diskBytes: 1 << 30, ...room } })
}

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'diapause-spill-'))
})
afterEach(async () => {
  await world.close()
  await rm(directory, { recursive: true })
})
const at = (peer: string): VirtualSwitch => world.at(peer)

/** No faster than the disk of the machine takes them, unless it takes none. */
async function send(from: { send(frame: Uint8Array): void }, make: (id: number) => Uint8Array): Promise<void> {
  for (const id of IDS) {
    from.send(make(id))
    if (id % 20 < 19) continue
    await until(() => {
      const { sent, waitingMemoryBytes, droppedFull } = at('p1').stats()
      return sent === id + 1 && (waitingMemoryBytes < 1.3 * MEMORY_BYTES || droppedFull > 0)
    })
  }
}

/** The files without a name that this process has in the directory. */
const spillFiles = (): string[] =>
  readdirSync('/proc/self/fd').flatMap(fd => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(directory) ? [`/proc/self/fd/${fd}`] : []
    } catch {
      return [] // closed meanwhile
    }
  })

describe('frames that wait', () => {
  it('beyond their memory are on disk, sealed and without a name, and come back in order', async () => {
    await open()
    const { a, b } = await world.group(OWNERS)
    await b.nic.hold()
    await send(a.vm, id => Buffer.from(frameOf('a', 'b', id, FRAME_BYTES)).fill('secret', 18))
    await until(() => at('p1').stats().waitingMemoryBytes <= MEMORY_BYTES)
    const { waitingMemoryBytes, waitingDiskBytes } = at('p1').stats()
    expect(waitingMemoryBytes + waitingDiskBytes).toBe(FRAMES * (FRAME_BYTES + 4))
    expect(await readdir(directory)).toEqual([])
    const files = spillFiles().map(path => readFileSync(path))
    expect(files.reduce((sum, { length }) => sum + length, 0)).toBeGreaterThanOrEqual(waitingDiskBytes)
    expect(files.some(bytes => bytes.includes('secret'))).toBe(false)
    await b.nic.release()
    await until(() => b.vm.ids.length === FRAMES)
    expect(b.vm.ids).toEqual(IDS)
    expect(at('p1').stats()).toMatchObject({ droppedFull: 0, waitingMemoryBytes: 0, waitingDiskBytes: 0 })
    await until(() => spillFiles().length === 0)
  })

  it('are kept while they are early, and delivered after the cut, those that come meanwhile behind them', async () => {
    await open()
    const { a, b } = await world.group(OWNERS)
    await cut(a.nic, 1)
    await send(a.vm, id => frameOf('a', 'b', id, FRAME_BYTES))
    expect(b.vm.ids).toEqual([])
    await cut(b.nic, 1)
    a.vm.send(frameOf('a', 'b', FRAMES))
    await until(() => b.vm.ids.length === FRAMES + 1)
    expect(b.vm.ids).toEqual([...IDS, FRAMES])
    expect(at('p1').stats()).toMatchObject({ droppedFull: 0, heldEarly: FRAMES })
  })

  it('where the disk takes nothing fill four times their memory, and then the newest are dropped and counted', async () => {
    const file = join(directory, 'a file')
    await writeFile(file, '')
    await open({ directory: join(file, 'inside') })
    const { a, b } = await world.group(OWNERS)
    await b.nic.hold()
    for (const id of IDS) a.vm.send(frameOf('a', 'b', id, FRAME_BYTES))
    await until(() => at('p1').stats().sent === FRAMES)
    const kept = FRAMES - at('p1').stats().droppedFull
    expect(kept).toBe(Math.floor((4 * MEMORY_BYTES) / (FRAME_BYTES + 4)))
    await b.nic.release()
    await until(() => b.vm.ids.length === kept)
    expect(b.vm.ids).toEqual(IDS.slice(0, kept))
  })
})

describe('frames of an image', () => {
  const VMS = { a: 'p1', b: 'p1', d: 'p1' }

  /** All room is taken by frames for `b`; an image's frames come for `d`. */
  async function injectIntoNoRoom() {
    const file = join(directory, 'a file')
    await writeFile(file, '')
    await open({ directory: join(file, 'inside') })
    const { a, b, d } = await world.group(VMS)
    await Promise.all([b.nic.hold(), d.nic.hold()])
    for (const id of IDS) a.vm.send(frameOf('a', 'b', id, FRAME_BYTES))
    await until(() => at('p1').stats().sent === FRAMES)
    const dropped = at('p1').stats().droppedFull
    const outcome: string[] = []
    const injected = d.nic.inject(pieceOf(...[1, 2].map(id => frameOf('b', 'd', id, FRAME_BYTES)))).then(
      () => outcome.push('done'),
      (error: Error & { code: string }) => outcome.push(error.code)
    )
    await quiet()
    expect(outcome).toEqual([])
    return { b, d, injected, outcome, dropped }
  }

  it('wait until there is room, and none is dropped', async () => {
    const { b, d, injected, outcome, dropped } = await injectIntoNoRoom()
    await b.nic.release()
    await injected
    await d.nic.release()
    await until(() => d.vm.ids.length === 2)
    expect([d.vm.ids, outcome]).toEqual([[1, 2], ['done']])
    expect(at('p1').stats().droppedFull).toBe(dropped)
  })

  it('are refused in the end where there is no room', async () => {
    const { injected, outcome } = await injectIntoNoRoom()
    world.nowMs = () => performance.now() + 3_600_000
    await injected
    expect(outcome).toEqual(['INJECTION_FULL'])
  })
})

describe('frames that are recorded', () => {
  it('are whole in the log, and given to the VM besides', async () => {
    await open()
    const { a, b, c } = await world.group(OWNERS)
    await cut(b.nic, 1)
    await b.nic.hold() // they wait and are recorded
    await send(a.vm, id => frameOf('a', 'b', id, FRAME_BYTES))
    await Promise.all([cut(a.nic, 1), cut(c.nic, 1)])
    const log = await b.nic.recorded(1)
    expect([log.frames, log.bytes]).toEqual([FRAMES, FRAMES * (FRAME_BYTES + 4)])
    await b.nic.release()
    const [ids] = await Promise.all([idsIn(log), until(() => b.vm.ids.length === FRAMES)])
    expect(ids).toEqual(IDS)
    expect(b.vm.received.map(idOf)).toEqual(IDS)
    expect(at('p1').stats()).toMatchObject({ droppedFull: 0, waitingMemoryBytes: 0, waitingDiskBytes: 0 })
  })

  it('take no room any more when their epoch is abandoned or their NIC detached', async () => {
    await open()
    const { a, b, c } = await world.group(OWNERS)
    for (const { nic } of [b, c]) await cut(nic, 1)
    await send(a.vm, id => frameOf('a', 'b', id, FRAME_BYTES))
    await until(() => b.vm.ids.length === FRAMES)
    const recorded = b.nic.recorded(1)
    await cut(a.nic, 1)
    const log = await recorded
    expect(at('p1').stats().waitingDiskBytes).toBeGreaterThan(0)
    await b.nic.abandon(1)
    await expect(idsIn(log)).rejects.toMatchObject({ code: 'EPOCH_ABORTED' })
    expect(at('p1').stats()).toMatchObject({ waitingMemoryBytes: 0, waitingDiskBytes: 0 })
    await b.nic.hold()
    a.vm.send(frameOf('a', 'b', 1))
    await until(() => at('p1').stats().waitingMemoryBytes > 0)
    await b.nic.detach()
    expect(at('p1').stats().waitingMemoryBytes).toBe(0)
  })
})
