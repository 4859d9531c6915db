/** A peer in a process of its own: echoes control messages and counts bulk bytes. Arguments: JSON in argv[2]. */
import { privateKeyFromRaw } from '@libp2p/crypto/keys'
import type { Clock, Log } from '../../node/ports.ts'
import { createTransport, type Member } from '../../protocols/transport.ts'

interface ChildOptions {
  readonly key: string
  readonly listen: string
  readonly members: readonly Member[]
}

const options = JSON.parse(process.argv[2] ?? '{}') as ChildOptions
const quiet = (): void => {}
const log: Log = { debug: quiet, info: quiet, warn: quiet, error: quiet }
const clock: Clock = {
  now: () => performance.now(),
  after(ms, fn) {
    const timer = setTimeout(fn, ms)
    return () => clearTimeout(timer)
  }
}
const transport = await createTransport({
  privateKey: privateKeyFromRaw(Buffer.from(options.key, 'hex')),
  listen: options.listen,
  cluster: 'test',
  members: options.members,
  log,
  clock
})
let bulkBytes = 0
transport.handle('control', (from, message) => void transport.send(from, 'control', [message]))
transport.handle('bulk', (from, message) => {
  bulkBytes += message.length
  transport.send(from, 'control', [Buffer.from(`bulk ${bulkBytes}`)])
})
await transport.start()
process.stdout.write('listening\n')
process.on('disconnect', () => process.exit(0))
