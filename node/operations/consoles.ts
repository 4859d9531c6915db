/**
 * Consoles of VMs, wherever they run: of this host's by its own files, of others' by asking their hosts. A reader that follows
 * goes with its VM: when a failover has moved it, what it says comes from its new host.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { ConsoleExchange, ReadQuestion, Said } from '../../protocols/console/shell.ts'
import { MAX_WAIT_MS } from '../../protocols/console/messages.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { ConsoleLine, ConsoleView, ConsoleWish } from '../edge/console-view.ts'
import { DiapauseError, hasCode, UsageError } from '../errors.ts'
import type { Clock } from '../ports.ts'

/** A host that does not answer is asked again after this, unless the VM is elsewhere by then. A guess. */
const AGAIN_MS = 500
/** Of what its new host has of it: the VM may have said something before it was asked for. A guess. */
const AFTER_MOVE_BYTES = 1_024

export interface ConsoleDeps {
  readonly self: PeerId
  readonly directory: Pick<GroupDirectory, 'get'>
  readonly clock: Clock
  readonly exchange: Pick<ConsoleExchange, 'read' | 'type'>
  nameOf(peer: PeerId): string
  /** Of VMs of this host. */
  readonly own: {
    read(question: ReadQuestion): Promise<Said>
    type(group: string, vm: string, text: string): Promise<void>
  }
}

export class ConsoleOperations implements ConsoleView {
  readonly #deps: ConsoleDeps

  constructor(deps: ConsoleDeps) {
    this.#deps = deps
  }

  async *read({ group, vm, history, follow }: ConsoleWish, signal: AbortSignal): AsyncGenerator<ConsoleLine> {
    const { nameOf } = this.#deps
    let owner = this.#ownerOf(group, vm)
    let from = -history
    yield { host: nameOf(owner) }
    let silent = false
    while (!signal.aborted) {
      const now = this.#ownerOf(group, vm)
      if (now !== owner) {
        owner = now
        from = -AFTER_MOVE_BYTES
        silent = false
        yield { host: nameOf(owner) }
      }
      try {
        const said = await this.#readOf(owner, { group, vm, from, waitMs: follow ? MAX_WAIT_MS / 10 : 0 })
        from = said.from + said.bytes.length
        silent = false
        if (said.bytes.length > 0) yield { data: Buffer.from(said.bytes).toString('base64') }
        else if (!follow) return
      } catch (error) {
        if (!follow || !hasCode(error, 'CONSOLE_SILENT')) throw error
        if (!silent) yield { note: `${nameOf(owner)} does not answer; waiting for it, or for the VM to go elsewhere` }
        silent = true
        await new Promise<void>(resolve => this.#deps.clock.after(AGAIN_MS, resolve))
      }
    }
  }

  async type(group: string, vm: string, text: string): Promise<void> {
    const { self, own, exchange } = this.#deps
    const owner = this.#ownerOf(group, vm)
    if (this.#deps.directory.get(group)?.resting) {
      const how = `start it first: diapause vm start ${group}`
      throw new UsageError('GROUP_RESTS', `Group "${group}" rests: VM ${vm} does not run; ${how}.`)
    }
    if (owner === self) await own.type(group, vm, text)
    else await exchange.type(owner, { group, vm, text })
  }

  #readOf(owner: PeerId, question: ReadQuestion): Promise<Said> {
    const { self, own, exchange } = this.#deps
    return owner === self ? own.read(question) : exchange.read(owner, question)
  }

  #ownerOf(group: string, vm: string): PeerId {
    const record = this.#deps.directory.get(group)
    if (record === undefined || record.removed) {
      throw new DiapauseError('GROUP_UNKNOWN', `There is no group "${group}" in this cluster.`)
    }
    const owner = record.owners[vm]
    if (owner === undefined) {
      const known = record.vms.map(({ id }) => id).join(', ')
      throw new DiapauseError('VM_UNKNOWN', `There is no VM "${vm}" in group "${group}", which has ${known}.`)
    }
    return owner
  }
}
