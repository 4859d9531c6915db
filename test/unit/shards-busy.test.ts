/** A member that asks for ever more: how much of it is served at once, and that it has no end. */
import { expect, it } from 'vitest'
import { encodeMessage, MAX_CHECKED, type ShardRequest } from '../../protocols/shards/messages.ts'
import { ShardService } from '../../protocols/shards/service.ts'
import { MemoryStore, Network } from './shards-network.ts'
import { clock, memoryLog } from './store-support.ts'

const ROUNDS = 5
const FLOOD = 200
/** `SERVED` and `READS` of `protocols/shards/serving.ts`. */
const [SERVED, READS] = [64, 4]

/** A peer on whose disk nothing ends before `release`; what the member `liar` sends it keeps to no lane of its own. */
function peer() {
  const network = new Network()
  const liar = network.transport('liar')
  const store = new MemoryStore()
  const open: (() => void)[] = []
  const onDisk = <T>(result: T): Promise<T> => new Promise(resolve => open.push(() => resolve(result)))
  store.verifyColumn = () => onDisk('whole' as const)
  store.readColumn = () => onDisk(new Uint8Array(8))
  const service = new ShardService({ transport: network.transport('self'), store, clock, log: memoryLog() })
  let id = 0
  return {
    service,
    open,
    floods(ask: (id: number) => ShardRequest): void {
      for (let i = 0; i < FLOOD; i++) liar.send('self', 'bulk', encodeMessage(ask(++id)))
    },
    release(): void {
      for (const end of open.splice(0)) end()
    }
  }
}

const settled = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) await new Promise(resolve => setImmediate(resolve))
}

const KINDS: readonly { kind: string; atOnce: number; ask: (id: number) => ShardRequest }[] = [
  {
    kind: 'check',
    atOnce: SERVED,
    ask: id => ({ kind: 'check', id, stream: 'g/v/1/1', column: 0, firstGrid: 0, grids: MAX_CHECKED })
  },
  {
    kind: 'get',
    atOnce: READS,
    ask: id => ({ kind: 'get', id, stream: 'g/v/1/1', grid: 0, column: 0, ranges: [{ offset: 0, length: 8 }] })
  }
]

it.each(KINDS)('$kind without end keeps a disk busy for ever, so many at once and no more', async ({ ask, atOnce }) => {
  const { service, open, floods, release } = peer()
  for (let round = 0; round < ROUNDS; round++) {
    const refused = service.stats().refusedBusy
    floods(ask)
    await settled()
    expect(open).toHaveLength(atOnce)
    expect(service.stats().refusedBusy).toBe(refused + FLOOD - SERVED)
    while (open.length > 0) {
      expect(open.length).toBeLessThanOrEqual(atOnce)
      release()
      await settled()
    }
  }
  expect(service.stats().served).toBe(ROUNDS * SERVED)
})
