/** The two ends of a switch under measurement: one sends, the other receives. */
import { once } from 'node:events'
import net from 'node:net'

/** Sent and not yet received: more only fills the switch's queue. */
const WINDOW_BYTES = 512 * 1024
const CHUNK_BYTES = 64 * 1024

export class Ends {
  readonly #from: net.Socket
  readonly #to: net.Socket

  private constructor(from: net.Socket, to: net.Socket) {
    this.#from = from
    this.#to = to
  }

  static async connect(fromPath: string, toPath: string): Promise<Ends> {
    const [from, to] = [net.connect(fromPath), net.connect(toPath)]
    await Promise.all([once(from, 'connect'), once(to, 'connect')])
    return new Ends(from, to)
  }

  /** As many frames as get through in that time. `packet`: the frame with its length before it. */
  flood(packet: Uint8Array, durationMs: number): Promise<{ frames: number; seconds: number }> {
    const chunk = Buffer.concat(Array<Uint8Array>(Math.ceil(CHUNK_BYTES / packet.length)).fill(packet))
    const begin = performance.now()
    let sent = 0
    let got = 0
    return new Promise(resolve => {
      const pump = (): void => {
        if (performance.now() - begin < durationMs) {
          for (; sent - got < WINDOW_BYTES; sent += chunk.length) this.#from.write(chunk)
        } else if (got === sent) {
          this.#to.off('data', onData)
          resolve({ frames: got / packet.length, seconds: (performance.now() - begin) / 1000 })
        }
      }
      const onData = (data: Buffer): void => {
        got += data.length
        pump()
      }
      this.#to.on('data', onData)
      pump()
    })
  }

  /** Milliseconds from writing each of `count` frames to reading it, with nothing else under way. */
  async oneByOne(packet: Uint8Array, count: number): Promise<number[]> {
    const taken: number[] = []
    while (taken.length < count) {
      const begin = performance.now()
      this.#from.write(packet)
      for (let got = 0; got < packet.length; ) got += ((await once(this.#to, 'data')) as [Buffer])[0].length
      taken.push(performance.now() - begin)
    }
    return taken
  }

  close(): void {
    this.#from.destroy()
    this.#to.destroy()
  }
}
