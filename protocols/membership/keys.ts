/**
 * Data keys: what images are sealed under, numbered, in the cluster's record. Key 0 is the cluster's secret, a file that
 * all who were ever members have; keys from 1 on are random, and the record carries them so that its storage members
 * open them and nobody else. Witnesses have none: they store no image.
 *
 * Only the newest key is wrapped for each member; the older ones that are still kept are sealed under the newest. So who has the
 * newest has them all, also who joined later, and a record grows by one wrapping a member and not by one a member and key.
 *
 * Whoever removes a member makes a new key in the same compare-and-set, wrapped for those who stay. From then on the
 * removed one opens nothing new: not with the secret, not with the keys that it had, not with the record itself. What it
 * could open before, it can open still.
 *
 * To make a key the older ones must be at hand, to be sealed under it: so it takes a member that opens the newest (a
 * *holder*). A newcomer becomes one when a holder has wrapped the newest for it (`giveKeys`); before that nothing is
 * placed there. Where no holder is left nobody opens the old keys any more, and the next key begins anew.
 *
 * All here is pure but for the randomness of the box, which is drawn anew each time a change is evaluated: a key that
 * sealed for one record and then for another would repeat a nonce.
 */
import { z } from 'zod'
import type { PeerId } from '../core.ts'
import { DATA_KEY_BYTES, KEY_SUITE, type KeyBox, openUnder, sealUnder } from './key-box.ts'

export interface DataKeys {
  /** How they are sealed (`key-box.ts`). */
  readonly suite: typeof KEY_SUITE
  readonly newest: KeyNote
  /** Each sealed under the newest; the newest of them first. */
  readonly older: readonly OlderKey[]
}

export interface KeyNote {
  readonly id: number
  /** Wall clock of the maker; 0 for key 0, of which nobody knows. */
  readonly madeMs: number
  /** Undefined for key 0. */
  readonly by?: PeerId | undefined
}

export interface OlderKey extends KeyNote {
  readonly sealed: string
}

export interface DataKey {
  readonly id: number
  readonly key: Uint8Array
}

/** The part of a cluster's record that is looked at here. */
export interface Keyed {
  readonly id: string
  readonly members: readonly { readonly id: PeerId; readonly role: string; readonly key?: string | undefined }[]
  readonly keys?: DataKeys | undefined
}

/** What a change of keys puts into the record: `members[].key` for these members. */
export interface Wrapped {
  readonly keys: DataKeys
  readonly wrapped: Readonly<Record<PeerId, string>>
}

/** What whoever changes the record has in hand. */
export interface KeyMaking {
  readonly self: PeerId
  readonly box: KeyBox
  /** Key 0; undefined where this peer was never given it. */
  readonly secret: Uint8Array | undefined
  readonly wallMs: number
  /** Keys under which committed images have streams; undefined: not known, so all. */
  readonly needed: ReadonlySet<number> | undefined
}

/** So many older keys are kept whether an image needs them or not: an epoch that is not committed yet may be under one. A guess. */
export const KEPT_KEYS = 16
/** A guess: what is left for them of a record with 100 members. `room.ts` keeps it. */
export const MAX_OLDER_KEYS = 32

const peer = z.string().regex(/^[A-Za-z0-9]{1,60}$/)
const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const note = { id: count, madeMs: z.number().min(0).max(Number.MAX_SAFE_INTEGER), by: peer.optional() }
/** Of `key-box.ts` a wrapped key has 107 characters, a sealed one 64. */
export const sealedSchema = z.string().regex(/^[A-Za-z0-9_-]{0,160}$/)

export const dataKeysSchema = z
  .strictObject({
    suite: z.literal(KEY_SUITE),
    newest: z.strictObject({ ...note, id: count.min(1) }),
    older: z.array(z.strictObject({ ...note, sealed: sealedSchema })).max(MAX_OLDER_KEYS)
  })
  .refine(({ newest, older }) => older.every(({ id }, i) => id < (older[i - 1]?.id ?? newest.id)), 'keys out of order')

const storageOf = ({ members }: Keyed): PeerId[] => members.flatMap(({ id, role }) => (role === 'storage' ? [id] : []))

/** Wrapped for storage members only, and where there is something to wrap. */
export const keysFitMembers = ({ members, keys }: Keyed): boolean =>
  members.every(({ role, key }) => key === undefined || (keys !== undefined && role === 'storage'))

/** Storage members that open the newest key. */
export const keyHolders = ({ members, keys }: Keyed): PeerId[] =>
  members.flatMap(({ id, role, key }) => (role === 'storage' && (keys === undefined || key) ? [id] : []))

/** Storage members that have not been given the newest key yet. */
export const lackingKeys = ({ members, keys }: Keyed): PeerId[] =>
  members.flatMap(({ id, role, key }) => (role === 'storage' && keys !== undefined && key === undefined ? [id] : []))

/** Whether the removal of `gone` takes a new key. Not that of a witness, once what it had been given opens nothing new. */
export const needsNewKey = (record: Keyed, gone: PeerId): boolean =>
  record.keys === undefined || storageOf(record).includes(gone)

/**
 * Whether `self` may make the next key, for all but `gone`: a holder that stays; where none does, any storage member that
 * stays, and where there is none of these either, anybody, since then there is nothing to make. `opens`: it opens the newest.
 */
export function mayMakeKey(record: Keyed, self: PeerId, opens: boolean, gone?: PeerId): boolean {
  const stay = storageOf(record).filter(id => id !== gone)
  const holders = keyHolders(record).filter(id => id !== gone)
  if (stay.length === 0) return true
  return holders.length === 0 ? stay.includes(self) : opens && holders.includes(self)
}

/** All keys that `self` opens, the newest first; undefined where it does not open the newest. Where there are none yet, key 0. */
export function openKeys(
  { id: cluster, keys, members }: Keyed,
  { self, box, secret }: Pick<KeyMaking, 'self' | 'box' | 'secret'>
): DataKey[] | undefined {
  if (keys === undefined) return secret && [{ id: 0, key: secret }]
  const { newest, older } = keys
  const wrapped = members.find(({ id }) => id === self)?.key ?? ''
  const key = box.unwrap(wrapped, contextOf(cluster, newest.id))
  if (key?.length !== DATA_KEY_BYTES) return undefined
  const rest = older.flatMap(({ id, sealed: text }): DataKey[] => {
    const opened = openUnder(key, contextOf(cluster, newest.id, id), text)
    return opened === undefined ? [] : [{ id, key: opened }]
  })
  return [{ id: newest.id, key }, ...rest]
}

const contextOf = (cluster: string, id: number, sealed?: number): string =>
  ['diapause data key', KEY_SUITE, cluster, id, ...(sealed === undefined ? [] : [sealed])].join('\n')

/** The keys after the present ones, for all storage members but `gone`; undefined where `self` cannot make them, or they are too many. */
export function nextKeys(record: Keyed, making: KeyMaking, gone?: PeerId): Wrapped | undefined {
  const { id: cluster, keys: before } = record
  const { self, box, wallMs } = making
  const begins = keyHolders(record).every(id => id === gone)
  const known = begins ? [] : openKeys(record, making)
  if (known === undefined || !mayMakeKey(record, self, true, gone)) return undefined
  const kept = begins ? [] : keptNotes(before, making.needed)
  if (kept.length > MAX_OLDER_KEYS) return undefined
  const id = (before?.newest.id ?? 0) + 1
  const key = box.fresh()
  const older = kept.flatMap((note): OlderKey[] => {
    const found = known.find(each => each.id === note.id)
    return found === undefined ? [] : [{ ...note, sealed: sealUnder(key, contextOf(cluster, id, note.id), found.key) }]
  })
  const to = storageOf(record).filter(each => each !== gone)
  const keys: DataKeys = { suite: KEY_SUITE, newest: { id, madeMs: wallMs, by: self }, older }
  return { keys, wrapped: wrappings(box, to, key, contextOf(cluster, id)) }
}

/** Which of the present keys are kept beside a new one; the newest first. */
function keptNotes(keys: DataKeys | undefined, needed: ReadonlySet<number> | undefined): KeyNote[] {
  const notes = keys === undefined ? [{ id: 0, madeMs: 0 }] : [keys.newest, ...keys.older.map(noteOf)]
  return notes.filter(({ id }, i) => i < KEPT_KEYS || needed === undefined || needed.has(id))
}

const noteOf = ({ id, madeMs, by }: OlderKey): KeyNote => ({ id, madeMs, ...(by === undefined ? {} : { by }) })

/** No further key can be made until images need fewer of the older ones. */
export const keysAreFull = ({ keys }: Keyed, needed: ReadonlySet<number> | undefined): boolean =>
  keptNotes(keys, needed).length > MAX_OLDER_KEYS

const wrappings = (box: KeyBox, to: readonly PeerId[], key: Uint8Array, context: string): Record<PeerId, string> =>
  Object.fromEntries(to.map(id => [id, box.wrap(id, key, context) ?? '']))

/** The present keys, also for those who lack them; undefined where nobody does or `self` cannot give them. */
export function keysForAll(record: Keyed, making: KeyMaking): Wrapped | undefined {
  const { keys } = record
  const lacking = lackingKeys(record)
  if (keys === undefined || lacking.length === 0) return undefined
  if (keyHolders(record).length === 0) return nextKeys(record, making)
  const [newest] = openKeys(record, making) ?? []
  if (newest === undefined) return undefined
  return { keys, wrapped: wrappings(making.box, lacking, newest.key, contextOf(record.id, newest.id)) }
}
