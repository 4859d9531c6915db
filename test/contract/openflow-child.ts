/**
 * A VM's stand-in on a host: says what it is told to and prints what it hears. Lines to it:
 *
 *     send ADDRESS LABEL FIRST LAST     a datagram for each number; prints `sent LABEL LAST` when the kernel has all
 *     flood ADDRESS LABEL               the same without an end, until it hears `halt`
 *     bulk ADDRESS MIB                  that much over TCP; prints `bulk MS` when the other side has read all
 *
 * It prints `up`, then `LABEL NUMBER` for each datagram in the order in which they come.
 */
import { createSocket } from 'node:dgram'
import { connect, createServer } from 'node:net'
import { createInterface } from 'node:readline'

const PORT = 7401
/** In a millisecond, so that the receiver's socket (208 KiB) is not overrun on a busy machine. */
const BURST = 10

const socket = createSocket('udp4')
socket.on('message', text => process.stdout.write(`${text.toString('latin1')}\n`))
socket.on('error', () => {}) // nobody listens yet
const pause = () => new Promise<void>(resolve => setTimeout(resolve, 1))

function say(address: string, text: string): Promise<void> {
  return new Promise(resolve => socket.send(text, PORT, address, () => resolve()))
}

async function send(address: string, label: string, first: number, last: number): Promise<void> {
  halted = false
  for (let number = first; number <= last && !halted; number++) {
    await say(address, `${label} ${number}`)
    if (number % BURST === 0) await pause()
  }
  process.stdout.write(`sent ${label} ${last}\n`)
}

let halted = false

function bulk(address: string, mebibytes: number): void {
  const began = performance.now()
  const piece = Buffer.alloc(1 << 20)
  const out = connect(PORT, address)
  let left = mebibytes
  const fill = (): void => {
    while (left-- > 0) if (!out.write(piece)) return
    out.end()
  }
  out.on('connect', fill).on('drain', fill).resume()
  out.on('end', () => process.stdout.write(`bulk ${Math.round(performance.now() - began)}\n`))
}

async function obey(line: string): Promise<void> {
  const [verb, address = '', ...rest] = line.split(' ')
  const [label = '', first, last] = rest
  if (verb === 'send') await send(address, label, Number(first), Number(last))
  else if (verb === 'flood') await send(address, label, 1, Number.POSITIVE_INFINITY)
  else if (verb === 'halt') halted = true
  else bulk(address, Number(label))
}

createServer({ allowHalfOpen: true }, peer => peer.resume().on('end', () => peer.end())).listen(PORT, () => {
  socket.bind(PORT, () => {
    socket.setBroadcast(true)
    process.stdout.write('up\n')
    createInterface({ input: process.stdin }).on('line', line => void obey(line))
  })
})
process.stdin.on('end', () => process.exit(0))
