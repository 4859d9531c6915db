/**
 * What lies where in a second home, format 1. Pure.
 *
 *     diapause-home.json                        what this is, for whoever finds it
 *     epochs/CLUSTER/GROUP/EPOCH                an epoch: what it needs, and sealed how to read it (epoch-object.ts)
 *     streams/CLUSTER/GROUP/HASH                a stream: its chunks in order (stream-object.ts)
 *     chunks/CLUSTER/GROUP/HASH                 sealed bytes of a stream, as they lie in the cluster's shards
 *
 * CLUSTER is the cluster's id, EPOCH has 15 digits, HASH is the SHA-256 of the object: what is there is never written
 * otherwise, and a stream that two epochs need is there once. All of a group lies apart, so that what one peer cleans up for
 * a group is no business of whoever copies another.
 */

export const HOME_FORMAT = 1

export const ABOUT_NAME = 'diapause-home.json'

export const aboutText = (): string =>
  `${JSON.stringify(
    {
      what: 'epochs of groups of virtual machines, copied here by diapause',
      format: HOME_FORMAT,
      'epochs/CLUSTER/GROUP/EPOCH':
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

export const epochName = (place: GroupPlace, epoch: number): string =>
  `${epochsOf(place)}${String(epoch).padStart(15, '0')}`
export const streamName = (place: GroupPlace, hash: string): string => `${streamsOf(place)}${hash}`
export const chunkName = (place: GroupPlace, hash: string): string => `${chunksOf(place)}${hash}`

export const hashIn = (name: string): string => name.slice(name.lastIndexOf('/') + 1)

/** Undefined for what is no name of an epoch. */
export function parseEpochName(name: string): (GroupPlace & { readonly epoch: number }) | undefined {
  const [, cluster, group, epoch] =
    /^epochs\/([0-9a-f]{32})\/([A-Za-z0-9][A-Za-z0-9_.-]{0,62})\/(\d{15})$/.exec(name) ?? []
  return cluster === undefined || group === undefined ? undefined : { cluster, group, epoch: Number(epoch) }
}
