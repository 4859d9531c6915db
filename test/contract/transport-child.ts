/** A peer in a process of its own: echoes control messages and counts bulk bytes. Arguments: JSON in argv[2]. */
import { type ChildOptions, childTransport } from './loopback.ts'

const transport = await childTransport(JSON.parse(process.argv[2] ?? '{}') as ChildOptions)
let bulkBytes = 0
transport.handle('control', (from, message) => void transport.send(from, 'control', [message]))
transport.handle('bulk', (from, message) => {
  bulkBytes += message.length
  transport.send(from, 'control', [Buffer.from(`bulk ${bulkBytes}`)])
})
await transport.start()
process.stdout.write('listening\n')
process.on('disconnect', () => process.exit(0))
