/** A peer's transport, control bus and failure detector in a process of its own. Options: JSON in argv[2]. */
import { privateKeyFromRaw } from '@libp2p/crypto/keys'
import type { DetectorSettings } from '../../config/schema.ts'
import type { Clock, Log } from '../../node/ports.ts'
import { createFailureDetector } from '../../protocols/failure-detector/shell.ts'
import { createControlBus } from '../../protocols/service.ts'
import { createTransport, type Member } from '../../protocols/transport.ts'

interface ChildOptions {
  readonly key: string
  readonly listen: string
  readonly members: readonly Member[]
  readonly settings: DetectorSettings
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
