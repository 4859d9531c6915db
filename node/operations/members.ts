/** What an operator can see of the cluster's members and ask about them: the API's `ClusterView` over membership. */
import type { PeerId } from '../../protocols/core.ts'
import {
  addInvite,
  dropInvite,
  rotateKeys,
  setAddress,
  wishLeave,
  wishVotes
} from '../../protocols/membership/changes.ts'
import { keyHolders, keysAreFull, lackingKeys, mayMakeKey } from '../../protocols/membership/keys.ts'
import {
  type ClusterRecord,
  findMember,
  MAX_INVITES,
  MAX_VOTERS,
  type MemberRecord,
  memberById,
  placeable
} from '../../protocols/membership/record.ts'
import { CLUSTER_FULL } from '../../protocols/membership/room.ts'
import { encodeToken, MAX_TOKEN_MEMBERS } from '../../protocols/membership/token.ts'
import type { DataKeyRing } from '../agents/data-keys.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { MembershipAgent } from '../agents/membership.ts'
import type { StoragePeers } from '../agents/storage-peers.ts'
import type {
  ClusterStatus,
  ClusterView,
  Invitation,
  InviteRequest,
  KeysStatus,
  MemberWish
} from '../edge/cluster-view.ts'
import { DiapauseError, UsageError } from '../errors.ts'
import { enduranceNow, placeOf, votesNow } from '../planning/endurance.ts'
import { type ImageLean, type MembershipFacts, membershipWaits } from '../planning/membership.ts'
import type { FailureDetector, Transport } from '../ports.ts'

export interface MemberOperationsDeps {
  readonly membership: MembershipAgent
  readonly dataKeys: DataKeyRing
  readonly directory: GroupDirectory
  readonly detector: FailureDetector
  readonly transport: Transport
  /** What members have said of themselves. */
  readonly storagePeers: Pick<StoragePeers, 'about'>
  readonly code: { readonly k: number; readonly m: number }
  facts(): Promise<MembershipFacts>
  /** Of all groups; undefined where not all are known here. */
  neededImages(): Promise<readonly ImageLean[] | undefined>
  wallMs(): number
  /** A key for an invitation, and the 32 bytes that it is made of. */
  newInvite(): Promise<{ readonly id: PeerId; readonly seed: Uint8Array }>
}

export class MemberOperations implements ClusterView {
  readonly #deps: MemberOperationsDeps

  constructor(deps: MemberOperationsDeps) {
    this.#deps = deps
  }

  async status(): Promise<ClusterStatus> {
    const { membership, detector, transport, code, storagePeers } = this.#deps
    const record = membership.record()
    const { voters, members, invites } = record
    const nameOf = (id: PeerId): string => memberById(record, id)?.name ?? id
    const living = detector.alive()
    const facts = await this.#deps.facts()
    return {
      id: record.id,
      name: record.name,
      version: record.version,
      voters: {
        version: voters.version,
        settled: voters.settled,
        ...votesNow(voters.ids, living)
      },
      code: { k: code.k, m: code.m, ...enduranceNow(storagePeers.about(placeable(record)), living, code) },
      members: members.map(({ id, name, address, role, votes, leaving, replaces }) => ({
        id,
        name,
        address,
        role,
        leaving,
        self: id === membership.self,
        votes: voters.ids.includes(id),
        wantsVote: votes && !leaving,
        liveness: detector.livenessOf(id),
        connected: id === membership.self || transport.connected(id),
        ...placeOf(storagePeers.about([id])),
        ...(replaces === undefined ? {} : { replaces: nameOf(replaces) })
      })),
      invites: invites.map(({ id, role, votes, replaces, expiresMs, usedBy }) => ({
        id: shortOf(id),
        role,
        votes,
        expiresMs,
        ...(replaces === undefined ? {} : { replaces: nameOf(replaces) }),
        ...(usedBy === undefined ? {} : { usedBy: nameOf(usedBy) })
      })),
      waits: membershipWaits(record, facts).map(({ peer, why }) => ({ member: nameOf(peer), why }))
    }
  }

  async invite({ role, votes, replaces: replaced, expiresMinutes }: InviteRequest): Promise<Invitation> {
    const { membership, wallMs, newInvite } = this.#deps
    const before = await membership.refresh()
    const replaces = replaced === undefined ? undefined : this.#member(before, replaced)
    if (replaces !== undefined) await this.#refuseOwner(replaces, 'replaced')
    const { id, seed } = await newInvite()
    const expiresMs = Math.ceil(wallMs()) + expiresMinutes * 60_000
    const fields = { id, role, votes, expiresMs }
    const record = await membership.change(
      addInvite(replaces === undefined ? fields : { ...fields, replaces: replaces.id })
    )
    if (!record.invites.some(invite => invite.id === id)) {
      if (record.invites.length < MAX_INVITES) throw new UsageError('CLUSTER_FULL', CLUSTER_FULL)
      throw new UsageError('INVITES_FULL', `there are ${MAX_INVITES} invitations already: wait until some expire`)
    }
    const members = this.#bestToAsk(record).map(member => ({ id: member.id, address: member.address }))
    return {
      token: encodeToken({ cluster: { id: record.id, name: record.name }, seed, expiresMs, members }),
      expiresMs
    }
  }

  async withdrawInvite(short: string): Promise<void> {
    const { membership } = this.#deps
    const { invites } = await membership.refresh()
    const found = invites.filter(invite => invite.usedBy === undefined && shortOf(invite.id) === short)
    if (found.length === 0) throw new UsageError('INVITE_UNKNOWN', `there is no open invitation "${short}"`)
    for (const { id } of found) {
      const record = await membership.change(dropInvite(id))
      const used = record.invites.some(invite => invite.id === id)
      if (used) throw new UsageError('INVITE_UNKNOWN', `a peer has joined with invitation "${short}" at this moment`)
      await membership.until(record.version) // from now on this peer admits nobody with it
    }
  }

  /** Who is alive first, this peer before all: it knows of the invitation. */
  #bestToAsk(record: ClusterRecord): MemberRecord[] {
    const { detector, membership } = this.#deps
    const alive = new Set(detector.alive())
    const rank = ({ id }: MemberRecord): number =>
      id === membership.self ? 0 : !alive.has(id) ? 3 : record.voters.ids.includes(id) ? 1 : 2
    return [...record.members].sort((a, b) => rank(a) - rank(b)).slice(0, MAX_TOKEN_MEMBERS)
  }

  async setMember(nameOrId: string, { votes, address }: MemberWish): Promise<void> {
    const { membership } = this.#deps
    const { id, name } = this.#member(await membership.refresh(), nameOrId)
    if (address !== undefined) {
      const change = setAddress(id, address)
      const record = await membership.change(current => {
        const taken = current.members.some(member => member.id !== id && member.address === address)
        return taken ? undefined : change(current)
      })
      if (memberById(record, id)?.address !== address) {
        const taken = record.members.some(member => member.address === address)
        if (!taken) throw new UsageError('CLUSTER_FULL', CLUSTER_FULL)
        throw new UsageError('ADDRESS_TAKEN', `another member has the address ${address}`)
      }
      await membership.until(record.version) // what is asked next tells of it
    }
    if (votes === undefined) return
    const wished = await membership.change(wishVotes(id, votes))
    checkVote(wished, id, votes)
    await membership.until(wished.version, record => {
      if (memberById(record, id)?.votes !== votes || memberById(record, id)?.leaving !== false) {
        throw new UsageError(
          'MEMBER_LEAVING',
          `somebody else wished otherwise for ${name} meanwhile: see diapause members`
        )
      }
      return record.voters.settled && record.voters.ids.includes(id) === votes
    })
  }

  async removeMember(nameOrId: string, force: boolean): Promise<void> {
    const { membership } = this.#deps
    const member = this.#member(await membership.refresh(), nameOrId)
    if (!force) await this.#refuseOwner(member, 'removed')
    const record = await membership.change(wishLeave(member.id, force))
    if (memberById(record, member.id)?.leaving === false) {
      throw new UsageError(
        'LAST_VOTER',
        `${member.name} has the only vote: give another member one first (diapause members set NAME --votes yes)`
      )
    }
    await membership.until(record.version, now => memberById(now, member.id) === undefined)
  }

  leave(force: boolean): Promise<void> {
    return this.removeMember(this.#deps.membership.self, force)
  }

  async keys(): Promise<KeysStatus> {
    const { membership, dataKeys } = this.#deps
    const images = await this.#deps.neededImages()
    const sealed = images?.flatMap(({ streams }) => streams.map(({ key = 0 }) => key))
    const record = membership.record()
    const { name, keys } = record
    const made = keys === undefined ? [{ id: 0, madeMs: 0, by: undefined }] : [keys.newest, ...keys.older]
    return {
      cluster: name,
      opens: dataKeys.opens(),
      keys: made.map(({ id, madeMs, by }) => ({
        id,
        ...(by === undefined ? {} : { madeMs, by: memberById(record, by)?.name ?? by }),
        ...(sealed && { streams: sealed.filter(key => key === id).length })
      })),
      holders: namesOf(record, keyHolders(record)),
      lacking: namesOf(record, lackingKeys(record))
    }
  }

  async rotateKeys(): Promise<KeysStatus> {
    const { membership, dataKeys } = this.#deps
    const before = await membership.until((await membership.refresh()).version)
    if (!mayMakeKey(before, membership.self, dataKeys.opens())) {
      const names = namesOf(before, keyHolders(before)).join(', ')
      throw new UsageError('KEYS_ELSEWHERE', `this peer does not have the data keys: ask one that has (${names})`)
    }
    const { neededKeys } = await this.#deps.facts()
    if (keysAreFull(before, neededKeys)) {
      const message = 'snapshots need too many older data keys: take an epoch of each group, and another if need be'
      throw new UsageError('KEYS_FULL', message)
    }
    const newest = before.keys?.newest.id ?? 0
    const after = await membership.change(rotateKeys(newest, dataKeys.making(neededKeys)))
    // Whoever else changed it at this moment has made a new one, too.
    if ((after.keys?.newest.id ?? 0) === newest) {
      throw new DiapauseError('KEYS_KEPT', 'the cluster changed at this moment: try again')
    }
    await membership.until(after.version)
    return await this.keys()
  }

  #member(record: ClusterRecord, nameOrId: string): MemberRecord {
    const member = findMember(record, nameOrId)
    if (member !== undefined) return member
    const names = record.members.map(each => each.name).join(', ')
    throw new UsageError('MEMBER_UNKNOWN', `there is no member "${nameOrId}" (members: ${names})`)
  }

  /** A living member that owns VMs goes only by force. */
  async #refuseOwner({ id, name }: MemberRecord, what: string): Promise<void> {
    const { directory, detector } = this.#deps
    if (detector.livenessOf(id) === 'dead') return
    await directory.survey()
    const owned = directory
      .all()
      .filter(record => !record.removed && !record.resting)
      .flatMap(record => record.vms.filter(vm => record.owners[vm.id] === id).map(vm => `${record.id}/${vm.id}`))
    if (owned.length === 0) return
    throw new UsageError(
      'MEMBER_OWNS_VMS',
      `${name} lives and owns ${owned.join(', ')}, so it is not ${what}: remove those groups first, or stop its peer, or remove it with --force: the groups then go back to their last snapshot on other hosts, and what happened since is lost`,
      { details: { vms: owned } }
    )
  }
}

/** Long enough that no two of the few there are look alike. */
const SHORT_CHARACTERS = 6
const shortOf = (invite: PeerId): string => invite.slice(-SHORT_CHARACTERS)

const namesOf = (record: ClusterRecord, ids: readonly PeerId[]): string[] =>
  ids.map(id => memberById(record, id)?.name ?? id)

function checkVote(record: ClusterRecord, id: PeerId, votes: boolean): void {
  const member = memberById(record, id)
  if (member === undefined || member.leaving) {
    throw new UsageError('MEMBER_LEAVING', `${member?.name ?? id} is leaving the cluster: its vote goes with it`)
  }
  if (member.votes === votes) return
  if (votes) throw new UsageError('VOTERS_FULL', `${MAX_VOTERS} members vote already: take another one's vote first`)
  throw new UsageError('LAST_VOTER', `${member.name} has the only vote: give another member one first`)
}
