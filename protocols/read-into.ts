import net from 'node:net'

/**
 * A connection that a server accepted, as a socket that reads into `buffer` and shows `take` views of it, valid during the
 * call; `accepted` is no more. Otherwise Node takes 64 KiB of new memory for each read and collects it later: a frame of
 * 9,000 bytes between two VMs took 86 µs of the processor instead of 37, and a round trip 80 µs more (`npm run bench --
 * switch`). Only sockets that connect may ask for a buffer (`onread`), so that this one's handle, which has no public name,
 * moves to a new socket.
 */
export function readInto(
  buffer: Uint8Array,
  accepted: net.Socket,
  writableHighWaterMark: number,
  take: (chunk: Uint8Array) => void
): net.Socket {
  const owner = accepted as unknown as { _handle: net.BoundSocket | null }
  const handle = owner._handle ?? undefined
  owner._handle = null
  accepted.destroy() // what is left of it, which the server counts
  const onread: net.OnReadOpts = {
    buffer,
    callback: count => {
      take(buffer.subarray(0, count))
      return true
    }
  }
  const options = { handle, onread, writableHighWaterMark }
  return new net.Socket(options)
}
