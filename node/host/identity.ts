/** Who a peer is: an Ed25519 key in its data folder. Its public half is the peer id, which members know it by. */
import { randomUUID } from 'node:crypto'
import { link, open, readFile, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import {
  generateKeyPair,
  generateKeyPairFromSeed,
  privateKeyFromProtobuf,
  privateKeyToProtobuf
} from '@libp2p/crypto/keys'
import type { Ed25519PrivateKey } from '@libp2p/interface'
import { peerIdFromPrivateKey, peerIdFromString } from '@libp2p/peer-id'
import type { PeerId } from '../../protocols/core.ts'
import { UsageError, hasCode, messageOf } from '../errors.ts'
import { makeFolder, syncFolder } from './files.ts'

export interface Identity {
  readonly privateKey: Ed25519PrivateKey
  readonly peerId: PeerId
}

/** An Ed25519 key in libp2p's protobuf has 68 bytes. */
const MAX_KEY_BYTES = 1_024

/**
 * The identity in `DIR/identity.key` (libp2p's protobuf of a private key, mode 0600), made where there is none.
 * UsageError IDENTITY_INVALID, or IDENTITY_EXPOSED where others may read the key.
 */
export async function loadOrCreateIdentity(dataDir: string): Promise<Identity> {
  const file = join(dataDir, 'identity.key')
  try {
    makeFolder(dataDir)
    return (await load(file)) ?? (await create(file))
  } catch (cause) {
    if (cause instanceof UsageError) throw cause
    throw new UsageError('DATA_DIR_UNUSABLE', `cannot use the data folder ${dataDir}: ${messageOf(cause)}`, { cause })
  }
}

async function load(file: string): Promise<Identity | undefined> {
  let mode: number
  try {
    mode = (await stat(file)).mode
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
  if ((mode & 0o077) !== 0) {
    throw new UsageError('IDENTITY_EXPOSED', `others may read ${file}: run chmod 600 ${file}`)
  }
  try {
    const bytes = await readFile(file)
    if (bytes.length > MAX_KEY_BYTES) throw new Error(`it has ${bytes.length} bytes`)
    const privateKey = privateKeyFromProtobuf(bytes)
    if (privateKey.type !== 'Ed25519') throw new Error(`it is of type ${privateKey.type}`)
    return identityOf(privateKey)
  } catch (cause) {
    const message = `${file} holds no Ed25519 key (${messageOf(cause)}): restore it from a backup, or remove it for a new identity`
    throw new UsageError('IDENTITY_INVALID', message, { cause })
  }
}

/** Whole or not at all, and never in place of another's: written aside, fsynced, then linked. */
async function create(file: string): Promise<Identity> {
  const privateKey = await generateKeyPair('Ed25519')
  const aside = `${file}.${randomUUID()}`
  const handle = await open(aside, 'wx', 0o600)
  try {
    await handle.writeFile(privateKeyToProtobuf(privateKey))
    await handle.sync()
  } finally {
    await handle.close()
  }
  try {
    await link(aside, file)
  } catch (error) {
    const other = hasCode(error, 'EEXIST') ? await load(file) : undefined
    if (other === undefined) throw error
    return other
  } finally {
    await unlink(aside)
  }
  await syncFolder(join(file, '..'))
  return identityOf(privateKey)
}

const identityOf = (privateKey: Ed25519PrivateKey): Identity => ({
  privateKey,
  peerId: peerIdFromPrivateKey(privateKey).toString()
})

/** The key of an invitation, made of the 32 bytes in its token. */
export async function identityFromSeed(seed: Uint8Array): Promise<Identity> {
  return identityOf(await generateKeyPairFromSeed('Ed25519', seed))
}

/** The 32 bytes of an Ed25519 key that `id` holds; undefined where it holds none. */
export function publicKeyOf(id: PeerId): Uint8Array | undefined {
  try {
    const peer = peerIdFromString(id)
    return peer.type === 'Ed25519' ? peer.publicKey.raw : undefined
  } catch {
    return undefined // an id need not be well formed
  }
}

/** The 32 bytes that the key is made of. libp2p keeps them before its public half. */
export const identitySeed = (privateKey: Ed25519PrivateKey): Uint8Array => privateKey.raw.slice(0, 32)

/** Whether `signature` of `bytes` was made with the key of `id`; false where `id` is none. */
export async function signedBy(id: PeerId, bytes: Uint8Array, signature: Uint8Array): Promise<boolean> {
  try {
    const peer = peerIdFromString(id)
    return peer.type === 'Ed25519' && (await peer.publicKey.verify(bytes, signature))
  } catch {
    return false // neither an id nor a signature need be well formed
  }
}
