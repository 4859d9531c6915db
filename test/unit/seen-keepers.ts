/** Who keeps groups, as a peer sees it of a cluster in which all members store and vote. */
import { Keepers, type KeepersDeps } from '../../node/agents/keepers.ts'
import { foundersRecord } from '../../protocols/membership/genesis.ts'

export class SeenKeepers {
  readonly keepers: Keepers
  /** Handlers of changes: somebody has died, or is back. */
  readonly #handlers: (() => void)[] = []
  #alive: readonly string[]

  constructor(self: string, members: readonly string[], directory: KeepersDeps['directory']) {
    this.#alive = members
    const address = '/ip4/127.0.0.1/tcp/1'
    const cluster = foundersRecord(
      'forest',
      members.map(id => ({ id, name: id, address, role: 'storage' }))
    )
    this.keepers = new Keepers({
      self,
      directory,
      detector: {
        alive: () => [...this.#alive],
        onChange: handler => void this.#handlers.push(() => handler(self, 'alive', 'the test says so'))
      },
      membership: { record: () => cluster, onChange() {} }
    })
  }

  set alive(peers: readonly string[]) {
    this.#alive = peers
    for (const handler of this.#handlers) handler()
  }
}
