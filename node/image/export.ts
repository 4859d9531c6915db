/**
 * Images as files, without an own way of reading or writing them: who exports stands where QEMU stands in a restore, who
 * imports where it stands in a capture. So what streams, tables and deltas are made of does not matter here, memory is bounded
 * by the socket's buffers, and whoever does not read holds the other back.
 */
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { DiapauseError, UsageError } from '../errors.ts'
import { machineTypeOf, PostcopyFile, SHUT, STREAM_LIMITS } from '../hypervisor/migration-stream.ts'
import type { Restore } from '../ports.ts'

/** QEMU's own streams have pages more than once, where the VM wrote to them meanwhile. A guess at how often. */
const TIMES_RAM = 4

/** The migration stream of an image as QEMU writes it to a file. Rejects as `restore.serve` does; ends it where it is left. */
export async function* exportRam(restore: Restore, socketPath: string): AsyncGenerator<Uint8Array> {
  await rm(socketPath, { force: true })
  const server = createServer()
  await new Promise<void>((resolve, reject) => server.on('error', reject).listen(socketPath, resolve))
  const served = restore.serve(socketPath)
  let sent = false
  try {
    const [socket] = (await Promise.race([once(server, 'connection'), served.then(endedEarly)])) as [Socket]
    const file = new PostcopyFile()
    let told = false
    for await (const chunk of socket as AsyncIterable<Uint8Array>) {
      yield* file.push(chunk)
      if (file.complete && !told) {
        told = true
        socket.write(SHUT)
      }
    }
    await served
    sent = true // its disks can still be read
    yield file.end()
  } finally {
    server.close()
    served.catch(() => {}) // told above, unless nobody reads any more
    if (!sent) await restore.cancel()
  }
}

const endedEarly = (): never => {
  throw new DiapauseError('MIGRATION_STREAM_CLOSED', 'the image was not sent')
}

export interface ImportRules {
  readonly memoryMiB: number
  /** What the stream's own configuration must say, e.g. "pc-i440fx-7.2". */
  readonly machineType: string
}

/**
 * Sends a migration stream, which nobody vouches for, to a capture that listens on `socketPath`. Resolves when all of it has
 * been sent; whether it was one, `capture.finish` tells. UsageErrors: IMPORT_MACHINE (of another machine type, or no migration
 * stream), IMPORT_SIZE (much longer than any of such a VM).
 */
export async function importRam(
  socketPath: string,
  parts: AsyncIterable<Uint8Array>,
  { memoryMiB, machineType }: ImportRules
): Promise<void> {
  const maxBytes = TIMES_RAM * memoryMiB * 2 ** 20 + STREAM_LIMITS.otherBlocksBytes + STREAM_LIMITS.deviceBytes
  const socket = connect(socketPath)
  await once(socket, 'connect')
  const checked = async function* (): AsyncGenerator<Uint8Array> {
    let head: Uint8Array | undefined = new Uint8Array(0)
    let bytes = 0
    for await (const part of parts) {
      bytes += part.length
      if (bytes > maxBytes) {
        throw new UsageError(
          'IMPORT_SIZE',
          `the migration stream of a VM of ${memoryMiB} MiB has more than ${maxBytes} bytes`
        )
      }
      yield part
      if (head === undefined) continue
      head = Buffer.concat([head, part.subarray(0, 2 * STREAM_LIMITS.configBytes)])
      const found = machineTypeOf(head)
      if (found === undefined) continue
      if (found !== machineType) throw otherMachine(found, machineType)
      head = undefined
    }
    if (head !== undefined) throw otherMachine('', machineType)
  }
  await pipeline(Readable.from(checked()), socket)
}

function otherMachine(found: string, expected: string): UsageError {
  const what = found === '' ? 'it is no migration stream of QEMU' : `it is of machine type ${JSON.stringify(found)}`
  return new UsageError(
    'IMPORT_MACHINE',
    `this migration stream cannot be imported: ${what}, and VMs here are of ${JSON.stringify(expected)}`,
    { details: { found: found.slice(0, 100), expected } }
  )
}
