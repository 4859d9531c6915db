/** All groups on this peer: one agent each, made when the first record of a group is learned. */
import { type GroupRecord, groupKey } from '../../protocols/group.ts'
import type { StandbyStatus } from '../../protocols/overview/standby-status.ts'
import { DiapauseError } from '../errors.ts'
import type { TalksOf } from '../planning/communication.ts'
import { GroupAgent, type GroupAgentDeps } from './group-agent.ts'
import type { StandbySource } from './host-parts.ts'
import type { LocalVm } from './local-vm.ts'
import { imageTalks, type TalksReader } from './restore-line.ts'

export class Groups {
  readonly #agents = new Map<string, GroupAgent>()
  readonly #standbys: StandbySource | undefined
  readonly #reader: TalksReader

  constructor(deps: GroupAgentDeps) {
    const { directory, leases, network } = deps
    this.#standbys = deps.hosting?.standbys
    this.#reader = deps.hosting ?? {}
    directory.onRecord(record => {
      let agent = this.#agents.get(record.id)
      if (agent === undefined) {
        agent = new GroupAgent(deps)
        this.#agents.set(record.id, agent)
      }
      agent.onRecord(record)
    })
    directory.onForgotten(id => {
      const agent = this.#agents.get(id)
      this.#agents.delete(id)
      void agent?.stop()
    })
    directory.onReport((message, from) => this.#agents.get(message.group)?.onReport(message, from))
    network.onMarker((group, vm, epoch) => this.#agents.get(group)?.onMarker(vm, epoch))
    const byKey = (key: string): GroupAgent | undefined => this.#agents.get(key.slice(groupKey('').length))
    leases.onLapse((key, generation) => {
      deps.report('lease.lapsed', { key, generation })
      byKey(key)?.onLease('lapse', generation)
    })
    leases.onRegained((key, generation) => {
      deps.report('lease.regained', { key, generation })
      byKey(key)?.onLease('regained', generation)
    })
    leases.onLost((key, generation, newer) => {
      deps.report('lease.lost', { key, generation, newer })
      byKey(key)?.onLease('lost', generation)
    })
  }

  /** Reports about epochs of a generation that is over. */
  refusedReports(): number {
    return [...this.#agents.values()].reduce((sum, agent) => sum + agent.refusedReports, 0)
  }

  /** Of all groups, on this host. */
  get standbys(): readonly StandbyStatus[] {
    return this.#standbys?.status ?? []
  }

  /** What the committed images of the group's VMs say of whom they spoke with. */
  talksOf(record: GroupRecord): Promise<TalksOf> {
    return imageTalks(record, this.#reader)
  }

  vmsOf(group: string): readonly LocalVm[] {
    return this.#agents.get(group)?.vms ?? []
  }

  /** Types into a VM's console. GROUP_UNKNOWN, VM_ELSEWHERE. */
  async type(group: string, vm: string, text: string): Promise<void> {
    const agent = this.#agents.get(group)
    if (agent === undefined) throw new DiapauseError('GROUP_UNKNOWN', `There is no group "${group}" in this cluster.`)
    await agent.type(vm, text)
  }

  /** Ends every VM here. */
  async stop(): Promise<void> {
    await Promise.all([...this.#agents.values()].map(agent => agent.stop()))
  }
}
