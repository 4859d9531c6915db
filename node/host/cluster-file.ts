/**
 * `cluster.json` in the data folder: the newest record of the cluster that this peer knows. With it a peer that starts knows
 * whom to call and whom to let in. Truth is in register `cluster`; this is where the way there begins.
 */
import { join } from 'node:path'
import { z } from 'zod'
import type { Config } from '../../config/schema.ts'
import type { PeerId } from '../../protocols/core.ts'
import { foundersRecord } from '../../protocols/membership/genesis.ts'
import { type ClusterRecord, clusterRecordSchema, memberById } from '../../protocols/membership/record.ts'
import { CLUSTER_FULL, hasRoom } from '../../protocols/membership/room.ts'
import { UsageError } from '../errors.ts'
import { readIfThere, writeDurably } from './files.ts'

/**
 * Grows when an older peer can no longer read what this one writes: 2 has data keys, 3 a recovery key, and each is written
 * where there is one.
 */
const FORMATS = [1, 2, 3]

const fileSchema = z.object({ format: z.number().int(), record: z.unknown() })

export const clusterFileOf = (dataDir: string): string => join(dataDir, 'cluster.json')

/** Durable when it resolves. */
export async function saveCluster(dataDir: string, record: ClusterRecord): Promise<void> {
  const format = record.recovery !== undefined ? 3 : record.keys === undefined ? 1 : 2
  await writeDurably(clusterFileOf(dataDir), `${JSON.stringify({ format, record }, null, 2)}\n`)
}

/** UsageError CLUSTER_FILE where it is damaged or of another version. Undefined where there is none. */
export async function readCluster(dataDir: string): Promise<ClusterRecord | undefined> {
  const file = clusterFileOf(dataDir)
  const text = await readIfThere(file)
  if (text === undefined) return undefined
  let format: number | undefined
  try {
    const found = fileSchema.parse(JSON.parse(text))
    format = found.format
    if (FORMATS.includes(format)) return clusterRecordSchema.parse(found.record)
  } catch (cause) {
    const message = `${file} is damaged: copy the one of another member of the cluster, or restore it from a backup`
    throw new UsageError('CLUSTER_FILE', message, { cause })
  }
  const message = `${file} was written by another version of diapause (format ${format}; this one reads ${FORMATS.join(', ')}): run that version`
  throw new UsageError('CLUSTER_FILE', message)
}

/**
 * The record that a peer starts with: what is in its data folder, or the founders that its config names. Until the
 * cluster changes for the first time the config holds, so that an address in it can be mended. UsageError where this peer
 * belongs to no cluster, to another one, or under another name.
 */
export async function clusterAtStart(config: Config, self: PeerId): Promise<ClusterRecord> {
  const { dataDir } = config.peer
  const { name } = config.cluster
  const stored = await readCluster(dataDir)
  const founders = config.members.length === 0 ? undefined : foundersRecord(name, config.members)
  if (stored !== undefined && stored.name !== name) {
    const message = `${dataDir} belongs to cluster "${stored.name}", but cluster.name is "${name}": give this peer its own peer.dataDir`
    throw new UsageError('DATA_DIR_OTHER_CLUSTER', message, { details: { expected: name, found: stored.name } })
  }
  if (stored !== undefined && founders !== undefined && stored.id !== founders.id) {
    throw new UsageError(
      'FOUNDERS_CHANGED',
      `the members of the config are not those that cluster "${name}" began with: put the list back as it was, or remove it (the data folder knows the members), and change members with diapause invite and diapause members`
    )
  }
  const record = stored === undefined || stored.version === 1 ? (founders ?? stored) : stored
  if (record === undefined) {
    throw new UsageError(
      'NO_CLUSTER',
      `${dataDir} belongs to no cluster: make one with diapause init, join one with diapause join, or name its founders in [[members]]`
    )
  }
  if (stored === undefined && !hasRoom(record)) {
    throw new UsageError(
      'CLUSTER_FULL',
      `the members of the config are too many for so long addresses: ${CLUSTER_FULL}`
    )
  }
  checkSelf(record, self, config)
  return record
}

function checkSelf(record: ClusterRecord, self: PeerId, { members, peer: { name, dataDir } }: Config): void {
  const me = memberById(record, self)
  if (record.removed.includes(self)) {
    const message = `this peer (${self}) was removed from cluster "${record.name}": to use this host again, join with a new data folder (diapause join)`
    throw new UsageError('REMOVED', message)
  }
  if (me === undefined) {
    throw new UsageError(
      'NOT_A_MEMBER',
      members.length > 0
        ? `members of the config lack this peer: add an entry with id = "${self}"`
        : `the identity in ${dataDir} (${self}) is no member of cluster "${record.name}": put back the identity.key that belongs here, or join with a new data folder (diapause join)`
    )
  }
  if (me.name !== name) {
    // Two peers that exchanged names, or a copied data folder: this one would vote and own VMs in the other's name.
    throw new UsageError(
      'NOT_THIS_MEMBER',
      `the identity in ${dataDir} (${self}) is member "${me.name}", but peer.name is "${name}": set peer.dataDir or peer.name right`
    )
  }
}
