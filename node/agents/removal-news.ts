/**
 * Whether this peer was removed while it was down. Members cut a removed identity off, so all that such a peer sees is that
 * nobody answers. While it reaches no majority of the voters it asks members one by one, over the join channel and under its
 * own identity; to a removed one they say so there, and nothing else.
 *
 * What it is told it only says. No vote, no file and no VM depends on it, for one member may be wrong; a majority that is
 * reached again takes it back.
 */
import type { PeerId, Random } from '../../protocols/core.ts'
import { parseJoinReply, type Removal, removalText } from '../../protocols/membership/join.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { majorityOf } from '../../protocols/register/voters.ts'
import { messageOf } from '../errors.ts'
import type { Clock, Log, Transport } from '../ports.ts'

/** How often a member is asked. A guess: each time costs both a handshake, and a person waits for the answer. */
export const ASK_EVERY_MS = 5_000

export interface RemovalNewsDeps {
  readonly self: PeerId
  readonly membership: { record(): ClusterRecord }
  readonly transport: Pick<Transport, 'connected'>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Asks a member over the join channel; resolves with its answer. */
  ask(member: { readonly id: PeerId; readonly address: string }): Promise<Uint8Array>
}

export class RemovalNews {
  readonly #deps: RemovalNewsDeps
  #told: Removal | undefined
  #stopped = false
  #cancel: () => void = () => {}

  constructor(deps: RemovalNewsDeps) {
    this.#deps = deps
  }

  /** Undefined: nobody has said so, or a majority has been reached since. */
  told(): Removal | undefined {
    return this.#told
  }

  start(): void {
    this.#cancel = this.#deps.clock.after(ASK_EVERY_MS, () => {
      void this.#look().finally(() => {
        if (!this.#stopped) this.start()
      })
    })
  }

  stop(): void {
    this.#stopped = true
    this.#cancel()
  }

  async #look(): Promise<void> {
    const { self, membership, transport, random } = this.#deps
    const { name: cluster, members, voters } = membership.record()
    const reached = voters.ids.filter(id => id === self || transport.connected(id))
    if (reached.length >= majorityOf(voters.ids.length)) {
      this.#told = undefined
      return
    }
    const away = members.filter(({ id }) => id !== self && !transport.connected(id))
    const member = away[Math.floor(random() * away.length)]
    if (this.#told !== undefined || member === undefined || !(await this.#says(member))) return
    this.#told = { cluster, by: member.name }
    this.#deps.log.error(this.#told, removalText(this.#told))
  }

  /** Whether this member says that we were removed. Of one that is away, or knows of nothing, nothing comes. */
  async #says(member: { readonly id: PeerId; readonly address: string }): Promise<boolean> {
    try {
      const reply = parseJoinReply(await this.#deps.ask(member))
      return reply.kind === 'refused' && reply.code === 'MEMBER_REMOVED' && !this.#stopped
    } catch (error) {
      this.#deps.log.debug({ member: member.id, error: messageOf(error) }, 'a member does not say what it holds us for')
      return false
    }
  }
}
