/** A peer's transport, control bus and failure detector in a process of its own. Options: JSON in argv[2]. */
import type { DetectorSettings } from '../../config/schema.ts'
import { createFailureDetector } from '../../protocols/failure-detector/shell.ts'
import { createControlBus } from '../../protocols/service.ts'
import { type ChildOptions, childTransport } from './loopback.ts'
import { clock, quietLog as log } from './real-clock.ts'

const options = JSON.parse(process.argv[2] ?? '{}') as ChildOptions & { readonly settings: DetectorSettings }
const transport = await childTransport(options)
const bus = createControlBus(transport, log, 'test')
const detector = createFailureDetector({
  self: transport.self,
  members: options.members.map(member => member.id),
  bus,
  clock,
  random: Math.random,
  settings: options.settings,
  log,
  transport
})
detector.onChange((peer, liveness, why) => {
  process.send?.({ kind: 'change', peer, liveness, why, atMs: performance.timeOrigin + performance.now() })
})
transport.onConnection(() => {
  const connected = options.members.filter(member => transport.connected(member.id)).length
  process.send?.({ kind: 'connected', connected })
})
await transport.start()
detector.start()
process.on('disconnect', () => process.exit(0))
