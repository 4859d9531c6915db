/** A cluster for tests of the planner of membership: what it is, who is up, and who carries out what is planned. */
import {
  addInvite,
  addVoter,
  admit,
  type Change,
  dropExpiredInvites,
  giveKeys,
  markSettled,
  removeMember,
  removeVoter
} from '../../protocols/membership/changes.ts'
import { initialRecord } from '../../protocols/membership/genesis.ts'
import { type KeyMaking, openKeys } from '../../protocols/membership/keys.ts'
import { type ClusterRecord, type Invite, parseClusterRecord } from '../../protocols/membership/record.ts'
import { majorityOf } from '../../protocols/register/voters.ts'
import { type MembershipFacts, type MembershipStep, planMembershipStep } from '../../node/planning/membership.ts'
import { plainBox } from '../sim/world-keys.ts'

export const makingOf = (self: string): KeyMaking => ({
  self,
  box: plainBox(self, Math.random),
  secret: new Uint8Array(32),
  wallMs: 0,
  needed: undefined
})

const changeOf = (step: MembershipStep, { self, wallMs }: MembershipFacts): Change => {
  if (step.kind === 'settle') return markSettled(step.version)
  if (step.kind === 'add-voter') return addVoter(step.version, step.peer)
  if (step.kind === 'remove-voter') return removeVoter(step.version, step.peer)
  if (step.kind === 'give-keys') return giveKeys(makingOf(self))
  return step.kind === 'remove-member' ? removeMember(step.peer, makingOf(self)) : dropExpiredInvites(wallMs)
}

export const facts = (fields: Partial<MembershipFacts> = {}): MembershipFacts => ({
  self: 'p1',
  opensKeys: true,
  neededKeys: undefined,
  reachable: new Set(),
  dead: new Set(),
  lost: new Set(),
  groupsKnown: true,
  owners: new Set(),
  needed: new Set(),
  wallMs: 0,
  ...fields
})

/** A cluster whose members come and go, and in which any member that is up carries out the next step. */
export class Model {
  record: ClusterRecord = initialRecord('0'.repeat(32), 'c', host(0))
  readonly down = new Set<string>()
  readonly owners = new Set<string>()
  readonly needed = new Set<string>()
  wallMs = 0
  /** Told of each change before it is made. */
  onChange: (before: ClusterRecord, after: ClusterRecord) => void = () => {}
  #hosts = 1
  #invites = 0

  /** As `self` sees it. */
  facts(self = 'p1'): MembershipFacts {
    const opensKeys = openKeys(this.record, makingOf(self)) !== undefined
    const reachable = new Set(this.record.members.map(member => member.id).filter(id => !this.down.has(id)))
    const { owners, needed, wallMs } = this
    return facts({ self, opensKeys, owners, needed, wallMs, reachable, dead: new Set(this.down) })
  }

  /** Registers can be changed while a majority of the voters is up. */
  change(change: Change): void {
    const { voters } = this.record
    if (voters.ids.filter(id => !this.down.has(id)).length < majorityOf(voters.ids.length)) return
    const changed = change(this.record)
    if (changed === undefined) return
    this.onChange(this.record, parseClusterRecord(changed) as ClusterRecord)
    this.record = changed
  }

  step(): MembershipStep | undefined {
    for (const { id } of this.record.members) {
      if (this.down.has(id)) continue
      const seen = this.facts(id)
      const step = planMembershipStep(this.record, seen)
      if (step === undefined) continue
      // Settling needs a majority of the set that it settles, which `change` asks for as well.
      this.change(changeOf(step, seen))
      return step
    }
    return undefined
  }

  invite(votes: boolean, replaces: string | undefined): void {
    const invite: Invite = {
      id: `inv${this.#invites++}`,
      role: 'storage',
      votes,
      expiresMs: this.wallMs + 1_000,
      ...(replaces === undefined ? {} : { replaces })
    }
    this.change(addInvite(invite))
    const { id, name, address } = host(this.#hosts)
    this.change(admit(invite, { id, name, address }))
    if (this.record.members.some(member => member.id === id)) this.#hosts++
  }
}

export function host(index: number) {
  return { id: `p${index}`, name: `p${index}`, address: `/ip4/10.0.0.1/tcp/${index + 1}`, role: 'storage' } as const
}
