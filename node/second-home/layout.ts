/**
 * What lies where in a second home, format 1. Pure.
 *
 *     diapause-home.json                        what this is, for whoever finds it
 *     epochs/CLUSTER/GROUP/GENERATION-EPOCH     an epoch: what it needs, and sealed how to read it (epoch-object.ts)
 *     streams/CLUSTER/GROUP/HASH                a stream: its chunks in order (stream-object.ts)
 *     chunks/CLUSTER/GROUP/HASH                 sealed bytes of a stream, as they lie in the cluster's shards
 *
 * CLUSTER is the cluster's id, GENERATION and EPOCH have 15 digits, so that the last name is that of what the group goes on
 * from: the numbers of epochs begin again where a removed group's name is used anew, those of generations never; and an epoch
 * that a group has gone back to, past others that are there, is there again under the generation that it began. HASH is the SHA-256 of the object: what is there is never written
 * otherwise, and a stream that two epochs need is there once. All of a group lies apart, so that what one peer cleans up for
 * a group is no business of whoever copies another.
 */

import { DiapauseError } from '../errors.ts'
import type { HomeEpochName } from '../ports.ts'

export const HOME_FORMAT = 1

/** An epoch of 64 VMs is the largest object; a chunk has 4 MiB, a page of a listing a thousand names. A guess with room. */
export const MAX_OBJECT_BYTES = 128 << 20

/** Under one prefix: chunks of a group of 4 TB. Whoever owns the bucket may make more, and memory must not go by that. A guess. */
export const MAX_LISTED = 1_000_000

export const tooMany = (url: string, what: string) =>
  new DiapauseError(
    'HOME_TOO_MANY',
    `${url} has more than ${what}: give each cluster a prefix of its own, and delete what belongs to groups that are no more`
  )

export const ABOUT_NAME = 'diapause-home.json'

export const aboutText = (): string =>
  `${JSON.stringify(
    {
      what: 'epochs of groups of virtual machines, copied here by diapause',
      format: HOME_FORMAT,
      'epochs/CLUSTER/GROUP/GENERATION-EPOCH':
        'what an epoch needs; how to read it is sealed under the recovery key of the cluster',
      'streams/CLUSTER/GROUP/HASH': 'the chunks of a stream, in order',
      'chunks/CLUSTER/GROUP/HASH': 'encrypted bytes',
      restore: 'diapause home restore --from URL --recovery-key-file FILE'
    },
    null,
    2
  )}\n`

/** Whose objects they are. */
export interface GroupPlace {
  /** Id of the cluster. */
  readonly cluster: string
  readonly group: string
}

export const EPOCHS = 'epochs/'
export const epochsOf = ({ cluster, group }: GroupPlace): string => `${EPOCHS}${cluster}/${group}/`
export const streamsOf = ({ cluster, group }: GroupPlace): string => `streams/${cluster}/${group}/`
export const chunksOf = ({ cluster, group }: GroupPlace): string => `chunks/${cluster}/${group}/`

const digits = (value: number): string => String(value).padStart(15, '0')
export const epochName = (of: HomeEpochName): string => `${epochsOf(of)}${digits(of.generation)}-${digits(of.epoch)}`
export const streamName = (place: GroupPlace, hash: string): string => `${streamsOf(place)}${hash}`
export const chunkName = (place: GroupPlace, hash: string): string => `${chunksOf(place)}${hash}`

export const hashIn = (name: string): string => name.slice(name.lastIndexOf('/') + 1)

/** Undefined for what is no name of an epoch. */
export function parseEpochName(name: string): HomeEpochName | undefined {
  const [, cluster, group, generation, epoch] =
    /^epochs\/([0-9a-f]{32})\/([A-Za-z0-9][A-Za-z0-9_.-]{0,62})\/(\d{15})-(\d{15})$/.exec(name) ?? []
  if (cluster === undefined || group === undefined) return undefined
  return { cluster, group, generation: Number(generation), epoch: Number(epoch) }
}

export const isHash = (text: string): boolean => /^[0-9a-f]{64}$/.test(text)
