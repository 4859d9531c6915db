/** QEMU's own reading of a migration stream, to compare ours with: what its description says of sections, and what it loads. */
import { writeSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { expect } from 'vitest'
import { migrationEnd, prepare } from '../../node/hypervisor/background-snapshot.ts'
import { machineArguments } from '../../node/hypervisor/command-line.ts'
import { MAIN_BLOCK, PAGE_BYTES, SnapshotParser } from '../../node/hypervisor/migration-stream.ts'
import { spawnQemu } from '../../node/hypervisor/process.ts'
import { listenForQmp, QmpClient } from '../../node/hypervisor/qmp.ts'
import { RamFolder } from '../../node/hypervisor/shared-ram.ts'
import type { Hypervisor } from '../../node/ports.ts'
import { nicsOf, type VmSpec } from '../../protocols/group.ts'
import { plug } from './hypervisor-support.ts'
import { differentPages, ramOfProcess } from './one-vm.ts'
import { clock } from './real-clock.ts'

/** Fields of a device as its description has them: QEMU's docs/devel/migration.rst, scripts/analyze-migration.py. */
interface Described {
  readonly name: string
  readonly instance_id: number
  readonly fields?: readonly Field[]
  readonly subsections?: readonly Subsection[]
}

interface Field {
  readonly size: number
  readonly array_len?: number
}

interface Subsection {
  readonly vmsd_name: string
  readonly fields?: readonly Field[]
  readonly subsections?: readonly Subsection[]
}

const [FULL, FOOTER] = [4, 0x7e]

/**
 * Walks device state, as our reader has kept it of `stream`, by the sizes that QEMU's description gives: each section must
 * begin and end where the description says. The sections.
 */
export function describedSections(stream: Buffer, devices: Uint8Array): readonly Described[] {
  const bytes = Buffer.from(devices)
  const described = descriptionOf(stream).filter(({ name }) => name !== 'ram')
  let at = 0
  for (const device of described) {
    const id = bytes.readUInt32BE(at + 1)
    const name = bytes.toString('latin1', at + 6, at + 6 + bytes.readUInt8(at + 5))
    expect([bytes[at], name], `section at ${at}`).toEqual([FULL, device.name])
    expect(bytes.readUInt32BE(at + 6 + name.length)).toBe(device.instance_id >>> 0)
    at += 6 + name.length + 8 + sizeOf(device)
    expect([bytes[at], bytes.readUInt32BE(at + 1)], `end of ${name}`).toEqual([FOOTER, id])
    at += 5
  }
  expect(bytes.length).toBe(at)
  return described
}

function sizeOf({ fields = [], subsections = [] }: Omit<Subsection, 'vmsd_name'>): number {
  const own = fields.reduce((sum, { size, array_len = 1 }) => sum + size * array_len, 0)
  return subsections.reduce((sum, each) => sum + 2 + each.vmsd_name.length + 4 + sizeOf(each), own)
}

/** At the end of the stream: 0 (EOF), 6 (VMDESC), a length, JSON. */
function descriptionOf(stream: Buffer): readonly Described[] {
  for (let at = stream.length - 6; at >= 0; at--) {
    if (stream[at] !== 0 || stream[at + 1] !== 6 || stream.readUInt32BE(at + 2) !== stream.length - at - 6) continue
    const { devices } = JSON.parse(stream.toString('latin1', at + 6)) as { devices: Described[] }
    return devices
  }
  throw new Error('QEMU has not described its stream')
}

/** A QEMU that is given `stream` by itself, with nothing of ours between, takes it, and has the RAM that we read. */
export async function expectSameByQemu(options: {
  readonly hypervisor: Hypervisor
  readonly spec: VmSpec
  readonly stream: Buffer
  readonly folder: string
  /** Where it is not in the stream. */
  readonly ram: Buffer | undefined
}): Promise<void> {
  const { hypervisor, spec, stream, folder } = options
  const sharedRam = options.ram !== undefined
  const path = (kind: string) => join(folder, `own.${kind}`)
  const plugs = await Promise.all(nicsOf(spec).map((_, i) => plug(path(`nic${i}`))))
  const paths = { qmp: path('qmp'), consoleLog: path('log') }
  const ends = plugs.flatMap(plugged => [...plugged.ends])
  const { accel } = hypervisor
  const args = machineArguments({ accel, guest: 'own-reading', spec, ends, paths, incoming: true, sharedRam })
  const ramFolder = sharedRam ? await RamFolder.probe({ folder: '/dev/shm', runDir: folder, clock }) : undefined
  const ram = await ramFolder?.make(spec.memoryMiB * 2 ** 20)
  if (ram && options.ram) writeSync(ram.fd, options.ram, 0, options.ram.length, 0)
  const listener = await listenForQmp(paths.qmp)
  const qemu = await spawnQemu('qemu-system-x86_64', [...args, '-S'], ram)
  try {
    const qmp = await QmpClient.open(await listener.connection, { clock })
    await prepare(qmp, sharedRam ? 'devices' : 'snapshot')
    const ended = migrationEnd(qmp)
    await qmp.command('migrate-incoming', { uri: `unix:${path('in')}` })
    connect(path('in'))
      .on('error', () => {}) // QEMU says why
      .end(stream)
    expect((await ended).data.status, 'QEMU has loaded the stream').toBe('completed')
    const read = options.ram ?? ramRead(stream, spec.memoryMiB)
    expect(differentPages(read, await ramOfProcess(qemu.pid, spec.memoryMiB))).toEqual([])
    qmp.close()
  } finally {
    qemu.kill()
    await qemu.exited
    await ram?.close()
    for (const { close } of plugs) await close()
  }
}

/** RAM as our reader has it. */
function ramRead(stream: Buffer, memoryMiB: number): Buffer {
  const ram = Buffer.alloc(memoryMiB * 2 ** 20)
  let main = -1
  const parser = new SnapshotParser({
    blocks: blocks => void (main = blocks.findIndex(({ name }) => name === MAIN_BLOCK)),
    page(block, offset, bytes) {
      if (block !== main) return
      if (bytes === undefined) ram.fill(0, offset, offset + PAGE_BYTES)
      else ram.set(bytes, offset)
    }
  })
  parser.push(stream)
  parser.end()
  return ram
}
