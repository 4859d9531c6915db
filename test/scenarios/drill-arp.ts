/** Asks for an address on the network of a drill, as a check may: a frame out of the socket `DIAPAUSE_DRILL/net`, and its answer. */
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'

const [, , folder = '', address = ''] = process.argv
const about = JSON.parse(readFileSync(join(folder, 'drill.json'), 'utf8')) as {
  networks: { socket: string; mac: string }[]
}
const [network] = about.networks
if (network === undefined) throw new Error('the drill has no network')
const bytesOf = (text: string, base: number): number[] =>
  text.split(base === 16 ? ':' : '.').map(part => Number.parseInt(part, base))
const mac = bytesOf(network.mac, 16)
const asked = bytesOf(address, 10)

/** RFC 826, from 10.9.0.250. */
const question = Buffer.concat([
  Buffer.from([255, 255, 255, 255, 255, 255, ...mac, 8, 6]),
  Buffer.from([0, 1, 8, 0, 6, 4, 0, 1, ...mac, 10, 9, 0, 250, 0, 0, 0, 0, 0, 0, ...asked]),
  Buffer.alloc(18)
])
const packet = Buffer.alloc(4 + question.length)
packet.writeUInt32BE(question.length)
question.copy(packet, 4)

const socket = connect(network.socket, () => {
  socket.write(packet)
  setInterval(() => socket.write(packet), 500)
})
let heard = Buffer.alloc(0)
socket.on('data', chunk => {
  heard = Buffer.concat([heard, chunk])
  while (heard.length >= 4 && heard.length >= 4 + heard.readUInt32BE(0)) {
    const frame = heard.subarray(4, 4 + heard.readUInt32BE(0))
    heard = heard.subarray(4 + frame.length)
    const isAnswer = frame.readUInt16BE(12) === 0x0806 && frame.readUInt16BE(20) === 2
    if (!isAnswer || !frame.subarray(28, 32).equals(Buffer.from(asked))) continue
    process.stdout.write(`${address} is at ${frame.toString('hex', 22, 28)}\n`)
    process.exit(0)
  }
})
