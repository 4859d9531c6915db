/** The API of a peer from the other side: of its socket, or over TCP. Light to import: the CLI starts with it. */
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Story, WhyQuestion } from '../../protocols/decisions/merge.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { DiapauseError, hasCode } from '../errors.ts'
import type { DrillReport, DrillWish, HomeCheck, HomeEpoch, HomeListing } from '../ports.ts'
import { connectionTo, type RemotePeer } from './client-connection.ts'
import {
  chunksOf,
  Exchange,
  type ExchangeSettings,
  lines,
  MAX_ANSWER_BYTES,
  readText,
  refusal,
  refusalOf
} from './client-exchange.ts'
import type { PeerEvent } from './events.ts'
import type { ClusterStatus, Invitation, InviteRequest, KeysStatus, MemberWish } from './cluster-view.ts'
import type { ConsoleLine, ConsoleWish } from './console-view.ts'
import type { DrillLine, ScheduleWish } from './drill-view.ts'
import type { GroupEpochs, PolicyWish, RestoreWish } from './epoch-view.ts'
import type {
  HomePlace,
  HomeCopied,
  HomePushWish,
  HomeRestoreWish,
  HomeStatus,
  HomeVerifyWish,
  RecoveryStatus,
  RecoveryWish
} from './home-view.ts'
import { type ImageRecord, RecordReader } from './image-records.ts'
import type { ExportWish } from './image-view.ts'
import type { StopWish } from './rest-view.ts'
import type { LogLevel, LogStatus } from './log-view.ts'
import type { TargetStatus, TargetTest } from './notification-view.ts'
import type { Overview } from './overview-view.ts'
import type { GroupPlan, PlanWish } from './plan-view.ts'
import type { GroupPolicy, PolicySimulation } from './policy-view.ts'
import type { RepairReport, VerifyReport, VerifyWish, WorkLine, WorkProgress } from './redundancy-view.ts'
import type { Asker, MadeToken, TokenStatus, TokenWish } from './token-view.ts'
import type { EpochResult, PeerStatus } from './view.ts'

/** One event is far smaller; a line longer than this is not from a peer. */
const MAX_EVENT_CHARACTERS = 1 << 20

/**
 * Every call rejects with UsageError PEER_UNREACHABLE where no peer can be reached (PEER_FORBIDDEN: not by this user), and with the peer's own code
 * and message (UsageError where the request was wrong, DiapauseError else) where it refuses; with DiapauseError PEER_LOST where
 * the peer was reached and breaks off, and PEER_SILENT where it does not tell in time what it is only asked for.
 */
export class ApiClient {
  readonly #peer: Exchange
  /** Where the peer is that is spoken to over TCP, e.g. "https://10.0.0.1:7480". */
  readonly origin: string | undefined

  /** `where`: the path of a peer's socket, or a peer elsewhere. UsageError API_URL. */
  constructor(where: string | RemotePeer, settings: ExchangeSettings = {}) {
    const connection = connectionTo(where)
    this.#peer = new Exchange(connection, settings)
    this.origin = connection.origin
  }

  async status(signal?: AbortSignal): Promise<PeerStatus> {
    return (await this.#peer.call('GET', '/v1/status', undefined, signal)) as PeerStatus
  }

  async groups(): Promise<GroupRecord[]> {
    return (await this.#peer.call('GET', '/v1/groups')) as GroupRecord[]
  }

  /** `request`: {id, vms, owners?} with owners by name or id; the peer checks it. `dryRun`: tells what would be made. */
  async createGroup(request: unknown, { dryRun } = { dryRun: false }): Promise<GroupRecord> {
    return (await this.#peer.call('POST', `/v1/groups${dryRun ? '?dryRun=1' : ''}`, request)) as GroupRecord
  }

  async overview(): Promise<Overview> {
    return (await this.#peer.call('GET', '/v1/overview')) as Overview
  }

  async removeGroup(group: string): Promise<void> {
    await this.#peer.call('DELETE', `/v1/groups/${encodeURIComponent(group)}`)
  }

  /** Settles when the epoch is committed or aborted. */
  async takeEpoch(group: string): Promise<EpochResult> {
    return (await this.#peer.call('POST', `/v1/groups/${encodeURIComponent(group)}/epochs`)) as EpochResult
  }

  async epochs(group: string): Promise<GroupEpochs> {
    return (await this.#peer.call('GET', `/v1/groups/${encodeURIComponent(group)}/epochs`)) as GroupEpochs
  }

  async holdEpoch(group: string, epoch: number, name: string): Promise<void> {
    await this.#peer.call('POST', `/v1/groups/${encodeURIComponent(group)}/epochs/${epoch}/holds`, { name })
  }

  async releaseEpoch(group: string, epoch: number, name: string | undefined): Promise<void> {
    const which = name === undefined ? '' : `?name=${encodeURIComponent(name)}`
    await this.#peer.call('DELETE', `/v1/groups/${encodeURIComponent(group)}/epochs/${epoch}/holds${which}`)
  }

  async policy(group: string): Promise<GroupPolicy> {
    return (await this.#peer.call('GET', `/v1/groups/${encodeURIComponent(group)}/policy`)) as GroupPolicy
  }

  /** `policy` undefined: as the config says. The peer checks it. */
  async setPolicy(group: string, policy: unknown): Promise<GroupRecord> {
    const path = `/v1/groups/${encodeURIComponent(group)}/policy`
    const answer = policy === undefined ? this.#peer.call('DELETE', path) : this.#peer.call('PUT', path, policy)
    return (await answer) as GroupRecord
  }

  async simulatePolicy(group: string, policy: unknown): Promise<PolicySimulation> {
    const path = `/v1/groups/${encodeURIComponent(group)}/policy/simulate`
    return (await this.#peer.call('POST', path, policy)) as PolicySimulation
  }

  async removeEpoch(group: string, epoch: number): Promise<void> {
    await this.#peer.call('DELETE', `/v1/groups/${encodeURIComponent(group)}/epochs/${epoch}`)
  }

  async setRetention(group: string, wish: PolicyWish): Promise<void> {
    await this.#peer.call('PATCH', `/v1/groups/${encodeURIComponent(group)}/retention`, wish)
  }

  /** Settles when it is decided that the group goes back. */
  async restore(group: string, wish: RestoreWish): Promise<GroupRecord> {
    return (await this.#peer.call('POST', `/v1/groups/${encodeURIComponent(group)}/restore`, wish)) as GroupRecord
  }

  /** Settles when the group rests. */
  async stopGroup(group: string, wish: StopWish): Promise<GroupRecord> {
    return (await this.#peer.call('POST', `/v1/groups/${encodeURIComponent(group)}/stop`, wish)) as GroupRecord
  }

  /** Settles when it is decided that the group runs again. */
  async startGroup(group: string, wish: RestoreWish): Promise<GroupRecord> {
    return (await this.#peer.call('POST', `/v1/groups/${encodeURIComponent(group)}/start`, wish)) as GroupRecord
  }

  /** Settles when nothing is left of it; `tell` hears how far it is. What aborts `signal` ends it. */
  async drill({ group, ...wish }: DrillWish, tell: (text: string) => void, signal: AbortSignal): Promise<DrillReport> {
    const response = await this.#peer.send('POST', `/v1/groups/${encodeURIComponent(group)}/drill`, wish, signal)
    if (response.statusCode !== 200) throw refusal(response, await readText(response))
    for await (const text of lines(response, MAX_ANSWER_BYTES)) {
      const line = JSON.parse(text) as DrillLine
      if ('report' in line) return line.report
      if ('error' in line) throw refusalOf(line.error, DiapauseError)
      tell(line.progress.text)
    }
    throw new DiapauseError('API_ANSWER', 'the peer broke off; has it stopped?')
  }

  /** `wish` undefined: drills on request only. */
  async scheduleDrills(group: string, wish: ScheduleWish | undefined): Promise<GroupRecord> {
    const path = `/v1/groups/${encodeURIComponent(group)}/drills`
    const answer = wish === undefined ? this.#peer.call('DELETE', path) : this.#peer.call('PUT', path, wish)
    return (await answer) as GroupRecord
  }

  /** What a VM says, until `signal` aborts, or the peer stops. */
  async *console({ group, vm, history, follow }: ConsoleWish, signal: AbortSignal): AsyncGenerator<ConsoleLine, void> {
    const path = `/v1/groups/${encodeURIComponent(group)}/vms/${encodeURIComponent(vm)}/console`
    const query = `history=${history}${follow ? '&follow=1' : ''}`
    try {
      const response = await this.#peer.send('GET', `${path}?${query}`, undefined, signal)
      if (response.statusCode !== 200) throw refusal(response, await readText(response))
      for await (const line of lines(response, MAX_EVENT_CHARACTERS)) yield JSON.parse(line) as ConsoleLine
    } catch (error) {
      if (!signal.aborted) throw error
    }
  }

  async typeConsole(group: string, vm: string, text: string): Promise<void> {
    const path = `/v1/groups/${encodeURIComponent(group)}/vms/${encodeURIComponent(vm)}/console`
    await this.#peer.call('POST', path, { text })
  }

  async why({ group, vm, agoMs, here }: WhyQuestion): Promise<Story> {
    const path = `/v1/groups/${encodeURIComponent(group)}/vms/${encodeURIComponent(vm)}/why`
    return (await this.#peer.call('GET', `${path}?agoMs=${agoMs}${here ? '&here=1' : ''}`)) as Story
  }

  async plan({ group, host }: PlanWish): Promise<GroupPlan[]> {
    const query = new URLSearchParams({ ...(group !== undefined && { group }), ...(host !== undefined && { host }) })
    return (await this.#peer.call('GET', query.size === 0 ? '/v1/plan' : `/v1/plan?${query.toString()}`)) as GroupPlan[]
  }

  async notifications(): Promise<TargetStatus[]> {
    return (await this.#peer.call('GET', '/v1/notifications')) as TargetStatus[]
  }

  /** Settles when each target has taken it or not. */
  async testNotifications(name: string | undefined): Promise<TargetTest[]> {
    return (await this.#peer.call('POST', '/v1/notifications/test', {
      ...(name !== undefined && { name })
    })) as TargetTest[]
  }

  async log(): Promise<LogStatus> {
    return (await this.#peer.call('GET', '/v1/log')) as LogStatus
  }

  /** `level` undefined: as the config of the peer says. */
  async setLog(level: LogLevel | undefined): Promise<LogStatus> {
    const answer =
      level === undefined ? this.#peer.call('DELETE', '/v1/log') : this.#peer.call('PUT', '/v1/log', { level })
    return (await answer) as LogStatus
  }

  async members(): Promise<ClusterStatus> {
    return (await this.#peer.call('GET', '/v1/members')) as ClusterStatus
  }

  /** `request`: {role?, votes?, replaces?, expiresMinutes?}. */
  async invite(request: { [Name in keyof InviteRequest]?: unknown }): Promise<Invitation> {
    return (await this.#peer.call('POST', '/v1/invites', request)) as Invitation
  }

  /** `id`: the short one that `members` tells. */
  async withdrawInvite(id: string): Promise<void> {
    await this.#peer.call('DELETE', `/v1/invites/${encodeURIComponent(id)}`)
  }

  /** Settles when it is so. */
  async setMember(nameOrId: string, wish: MemberWish): Promise<void> {
    await this.#peer.call('PATCH', `/v1/members/${encodeURIComponent(nameOrId)}`, wish)
  }

  /** Settles when it is no member any more. */
  async removeMember(nameOrId: string, force: boolean): Promise<void> {
    await this.#peer.call('DELETE', `/v1/members/${encodeURIComponent(nameOrId)}${force ? '?force=1' : ''}`)
  }

  async keys(): Promise<KeysStatus> {
    return (await this.#peer.call('GET', '/v1/keys')) as KeysStatus
  }

  /** Settles when the peer has the new key. */
  async rotateKeys(): Promise<KeysStatus> {
    return (await this.#peer.call('POST', '/v1/keys')) as KeysStatus
  }

  /** Whose token this client has, and what it is good for. */
  async whoami(): Promise<Asker> {
    return (await this.#peer.call('GET', '/v1/whoami')) as Asker
  }

  async tokens(): Promise<TokenStatus[]> {
    return (await this.#peer.call('GET', '/v1/tokens')) as TokenStatus[]
  }

  async newToken(wish: TokenWish): Promise<MadeToken> {
    return (await this.#peer.call('POST', '/v1/tokens', wish)) as MadeToken
  }

  async removeToken(name: string): Promise<void> {
    await this.#peer.call('DELETE', `/v1/tokens/${encodeURIComponent(name)}`)
  }

  async home(): Promise<HomeStatus> {
    return (await this.#peer.call('GET', '/v1/home')) as HomeStatus
  }

  /** Settles when the committed epoch has been copied. */
  async pushHome(wish: HomePushWish): Promise<HomeCopied> {
    return (await this.#peer.call('POST', '/v1/home/push', wish)) as HomeCopied
  }

  async listHome(place: HomePlace): Promise<HomeListing> {
    return (await this.#peer.call('POST', '/v1/home/list', place)) as HomeListing
  }

  async verifyHome(wish: HomeVerifyWish): Promise<HomeCheck & { readonly of: HomeEpoch }> {
    return (await this.#peer.call('POST', '/v1/home/verify', wish)) as HomeCheck & { readonly of: HomeEpoch }
  }

  /** Settles when the groups are there. */
  async restoreHome(wish: HomeRestoreWish): Promise<HomeEpoch[]> {
    return (await this.#peer.call('POST', '/v1/home/restore', wish)) as HomeEpoch[]
  }

  async setRecovery(wish: RecoveryWish): Promise<RecoveryStatus> {
    return (await this.#peer.call('PUT', '/v1/recovery-key', wish)) as RecoveryStatus
  }

  /** Settles when the peer is no member any more; it stops then. */
  async leave(force: boolean): Promise<void> {
    await this.#peer.call('POST', '/v1/leave', { force })
  }

  /** The records of an image, whose bytes are valid until the next one is asked for. Rejects where the peer cannot go on. */
  async *exportImage({ group, vm, epoch }: ExportWish, signal: AbortSignal): AsyncGenerator<ImageRecord, void> {
    const path = `/v1/groups/${encodeURIComponent(group)}/vms/${encodeURIComponent(vm)}/image`
    const response = await this.#peer.send(
      'GET',
      `${path}${epoch === undefined ? '' : `?epoch=${epoch}`}`,
      undefined,
      signal
    )
    if (response.statusCode !== 200) throw refusal(response, await readText(response))
    const reader = new RecordReader()
    for await (const chunk of chunksOf(response)) {
      for (const record of reader.push(chunk)) {
        if (record.kind !== 'error') yield record
        else throw refusalOf(record.value, DiapauseError)
      }
    }
  }

  /** `records`: encoded, to be sent as they come; where they reject, so does this, and the peer forgets what it had. */
  async importImage(records: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<GroupRecord> {
    const { request, response: answered } = this.#peer.begin('POST', '/v1/images', signal)
    answered.catch(() => {}) // told below, unless sending failed first
    const sent = pipeline(Readable.from(records), request)
    // A peer that refuses answers early, and what is sent on goes nowhere: its answer tells more than that.
    const response = await Promise.race([answered, sent.then(() => answered)])
    const text = await readText(response)
    if ((response.statusCode ?? 500) >= 400) throw refusal(response, text)
    return JSON.parse(text) as GroupRecord
  }

  /** Settles when all has been looked at; `progress` hears how far it is. */
  verify(
    { name, deep }: VerifyWish,
    progress: (now: WorkProgress) => void,
    signal: AbortSignal
  ): Promise<VerifyReport> {
    const query = new URLSearchParams({ deep: deep ? '1' : '0', ...(name !== undefined && { name }) })
    return this.#work(`/v1/verify?${query.toString()}`, progress, signal)
  }

  /** Settles when nothing more can be done. */
  repair(progress: (now: WorkProgress) => void, signal: AbortSignal): Promise<RepairReport> {
    return this.#work('/v1/repair', progress, signal)
  }

  async #work<T>(path: string, progress: (now: WorkProgress) => void, signal: AbortSignal): Promise<T> {
    const response = await this.#peer.send('POST', path, undefined, signal)
    if (response.statusCode !== 200) throw refusal(response, await readText(response))
    for await (const text of lines(response, MAX_ANSWER_BYTES)) {
      const line = JSON.parse(text) as WorkLine<T>
      if ('report' in line) return line.report
      if ('error' in line) throw refusalOf(line.error, DiapauseError)
      progress(line.progress)
    }
    throw new DiapauseError('API_ANSWER', 'the peer broke off; has it stopped?')
  }

  /** The kept events, then (with `follow`) those to come, until the peer stops or `signal` aborts. */
  async *events(options: { follow?: boolean; signal?: AbortSignal } = {}): AsyncGenerator<PeerEvent, void> {
    const response = await this.#peer.send(
      'GET',
      `/v1/events${options.follow ? '?follow=1' : ''}`,
      undefined,
      options.signal
    )
    if (response.statusCode !== 200) throw refusal(response, await readText(response))
    try {
      for await (const line of lines(response, MAX_EVENT_CHARACTERS)) yield JSON.parse(line) as PeerEvent
    } catch (error) {
      // A peer that is killed tears its stream: for the reader this is its end, as an orderly stop is.
      if (!options.signal?.aborted && !hasCode(error, 'PEER_LOST')) throw error
    }
  }
}
