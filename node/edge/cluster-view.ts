/** What the edge shows of the cluster's members and asks for about them; part of `PeerView`. */
import type { MemberStatus } from './view.ts'

export interface ClusterView {
  /** The members as this peer knows them, and what it still waits for. */
  status(): Promise<ClusterStatus>
  /** A token for one new member. MEMBER_UNKNOWN, INVITES_FULL, CLUSTER_FULL, MEMBER_OWNS_VMS (who is to be replaced lives and owns some). */
  invite(request: InviteRequest): Promise<Invitation>
  /** Nobody joins any more with the invitation of that short id, nor with the token that was printed for it. INVITE_UNKNOWN. */
  withdrawInvite(id: string): Promise<void>
  /** Resolves when it is so, however long that takes. MEMBER_UNKNOWN, MEMBER_LEAVING, LAST_VOTER, VOTERS_FULL, ADDRESS_TAKEN, CLUSTER_FULL. */
  setMember(nameOrId: string, wish: MemberWish): Promise<void>
  /** Resolves when it is no member any more, however long that takes. MEMBER_UNKNOWN, LAST_VOTER, MEMBER_OWNS_VMS. */
  removeMember(nameOrId: string, force: boolean): Promise<void>
  /** As `removeMember`, for this peer, which then stops. */
  leave(force: boolean): Promise<void>
  /** The keys that snapshots are sealed under. */
  keys(): Promise<KeysStatus>
  /** Makes a new one; resolves when this peer has it. KEYS_ELSEWHERE (it does not have the present one), KEYS_FULL. */
  rotateKeys(): Promise<KeysStatus>
}

/** Of a token. An hour: a guess; time to walk to the other machine, not to leave a token lying about. */
export const DEFAULT_EXPIRY_MINUTES = 60

export interface InviteRequest {
  readonly role: 'storage' | 'witness'
  readonly votes: boolean
  /** Name or id of the member in whose stead the new one comes. */
  readonly replaces?: string | undefined
  readonly expiresMinutes: number
}

export interface Invitation {
  readonly token: string
  /** Wall clock. */
  readonly expiresMs: number
}

export interface MemberWish {
  readonly votes?: boolean | undefined
  readonly address?: string | undefined
}

export interface ClusterStatus {
  readonly id: string
  readonly name: string
  /** Of the cluster's record. */
  readonly version: number
  readonly voters: {
    readonly version: number
    /** Nobody counts by the set before any more: the next change may be made. */
    readonly settled: boolean
    readonly count: number
    /** So many of them are not held for dead. Absent: a peer of before that was told. */
    readonly live?: number | undefined
    /** So many of those who live, whichever, may fail, and the others still decide. */
    readonly tolerates: number
  }
  readonly code: CodeStatus
  readonly members: readonly ClusterMember[]
  readonly invites: readonly InviteStatus[]
  /** What is wished for and cannot be done now. */
  readonly waits: readonly { readonly member: string; readonly why: string }[]
}

/** This peer's code, and what may vanish without the loss of a new snapshot. */
export interface CodeStatus {
  readonly k: number
  readonly m: number
  /** Storage members. */
  readonly storage: number
  /** So many of them are not held for dead. Absent: a peer of before that was told. */
  readonly live?: number | undefined
  /** So many of those who live, whichever, may vanish. */
  readonly tolerates: number
  /** Of each level that some member has a label of, the largest first. */
  readonly domains: readonly {
    readonly level: 'site' | 'rack' | 'host'
    /** So many, whichever, may vanish whole. */
    readonly tolerates: number
    /** Names of those with a label that may vanish alone. */
    readonly alone: readonly string[]
  }[]
}

export interface ClusterMember extends MemberStatus {
  readonly self: boolean
  /** To have a vote in the end; `votes` says whether it has one. */
  readonly wantsVote: boolean
  readonly leaving: boolean
  /** Name of the member in whose stead it came, until that is gone. */
  readonly replaces?: string | undefined
}

export interface KeysStatus {
  /** Its name. */
  readonly cluster: string
  /** This peer has the newest. */
  readonly opens: boolean
  /**
   * The newest first; key 0 is the cluster's secret, of which nobody noted when it was made and by whom. `streams`: of kept
   * images; absent where this peer cannot tell.
   */
  readonly keys: readonly {
    readonly id: number
    readonly madeMs?: number
    readonly by?: string
    readonly streams?: number
  }[]
  /** Names of the members that have the newest, and of those that are still to be given it. */
  readonly holders: readonly string[]
  readonly lacking: readonly string[]
}

export interface InviteStatus {
  /** By which it is withdrawn: the end of the invitation's public key. Absent: a peer of before any could be. */
  readonly id?: string | undefined
  readonly role: 'storage' | 'witness'
  readonly votes: boolean
  readonly replaces?: string | undefined
  readonly expiresMs: number
  /** Name of the member that has joined with it. */
  readonly usedBy?: string | undefined
}
