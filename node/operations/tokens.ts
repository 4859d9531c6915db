/** The API's tokens: its `TokenView` over the cluster's record. */
import { addApiToken, removeApiToken } from '../../protocols/membership/changes.ts'
import {
  API_TOKEN_BYTES,
  apiTokenHash,
  apiTokenText,
  findApiToken,
  hasExpired,
  MAX_API_TOKENS
} from '../../protocols/membership/api-tokens.ts'
import type { MembershipAgent } from '../agents/membership.ts'
import type { EventFeed } from '../edge/events.ts'
import type { MadeToken, TokenHolder, TokenStatus, TokenView, TokenWish } from '../edge/token-view.ts'
import { DiapauseError, UsageError } from '../errors.ts'
import { memberOlder, olderMembers, type VersionFacts } from '../planning/older-members.ts'
import type { Clock } from '../ports.ts'

const DAY_MS = 86_400_000
/** A removal that is decided waits so long for this disk: a guess, what a person waits for. */
const SAVED_WITHIN_MS = 10_000

export interface TokenDeps extends VersionFacts {
  readonly membership: Pick<MembershipAgent, 'record' | 'newest' | 'refresh' | 'change' | 'until'>
  readonly events: EventFeed
  readonly clock: Pick<Clock, 'after'>
  wallMs(): number
  randomBytes(count: number): Uint8Array
}

export class TokenOperations implements TokenView {
  readonly #deps: TokenDeps

  constructor(deps: TokenDeps) {
    this.#deps = deps
  }

  list(): readonly TokenStatus[] {
    const { membership, wallMs } = this.#deps
    const tokens = membership.newest().apiTokens ?? []
    return tokens.map(({ hash: _secret, ...token }) => ({ ...token, expired: hasExpired(token, wallMs()) }))
  }

  async make({ name, role, expiresDays }: TokenWish): Promise<MadeToken> {
    const { membership, events, wallMs, randomBytes } = this.#deps
    const older = olderMembers(this.#deps)
    if (older.length > 0) throw memberOlder(older, 'tokens of the API')
    const token = apiTokenText(randomBytes(API_TOKEN_BYTES))
    const madeMs = Math.floor(wallMs())
    const expiresMs = expiresDays === undefined ? undefined : madeMs + expiresDays * DAY_MS
    const noted = { name, role, hash: apiTokenHash(token), madeMs, ...(expiresMs !== undefined && { expiresMs }) }
    await membership.refresh()
    const record = await membership.change(addApiToken(noted))
    const found = record.apiTokens?.find(each => each.name === name)
    if (found !== undefined && found.hash !== noted.hash) {
      throw new UsageError('TOKEN_EXISTS', `there is a token "${name}" already: remove it first, or take another name`)
    }
    if (found === undefined) {
      const many = (record.apiTokens?.length ?? 0) >= MAX_API_TOKENS
      const why = many
        ? `the cluster has ${MAX_API_TOKENS} tokens already`
        : 'the record of the cluster has no room for another'
      throw new UsageError('TOKENS_FULL', `${why}: remove a token first`)
    }
    events.emit('token.made', { name, role, ...(expiresMs !== undefined && { expiresMs }) })
    return { token, name, role, expiresMs }
  }

  async remove(name: string): Promise<void> {
    const { membership, events } = this.#deps
    const before = await membership.refresh()
    if (before.apiTokens?.some(each => each.name === name) !== true) {
      throw new UsageError('TOKEN_UNKNOWN', `there is no token "${name}"`)
    }
    const record = await membership.change(removeApiToken(name))
    if (record.apiTokens?.some(each => each.name === name) === true) {
      throw new DiapauseError('TOKEN_KEPT', 'the cluster changed at this moment: try again')
    }
    await this.#saved(record.version)
    events.emit('token.removed', { name })
  }

  /** So that a token is not taken again after a restart; a disk that takes nothing is not waited for any longer. */
  async #saved(version: number): Promise<void> {
    const { membership, clock } = this.#deps
    let cancel = (): void => {}
    const late = new Promise<void>(resolve => {
      cancel = clock.after(SAVED_WITHIN_MS, resolve)
    })
    await Promise.race([membership.until(version), late]).finally(() => cancel())
  }

  /** By the newest record, saved here or not: one that was removed opens nothing from the moment that this peer hears of it. */
  holderOf(token: string): TokenHolder | undefined {
    const { membership, wallMs } = this.#deps
    return findApiToken(membership.newest().apiTokens ?? [], token, wallMs())
  }
}
