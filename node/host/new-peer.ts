/** A peer's files as `diapause init` and `diapause join` make them: checked before anything is written, never overwritten. */
import { existsSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { stringify } from 'smol-toml'
import { checkConfig } from '../../config/parse.ts'
import { addressSchema } from '../../config/schema.ts'
import { problemText } from '../../config/words.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { UsageError } from '../errors.ts'
import { clusterFileOf, readCluster, saveCluster } from './cluster-file.ts'
import { makeFolder, writeDurably } from './files.ts'
import { writeSecret } from './secret.ts'

export interface NewPeerOptions {
  readonly name: string
  readonly dataDir: string
  readonly listen: string
  /** Where the others reach it; by default where it listens, if that is one address. */
  readonly advertise?: string | undefined
  readonly runDir?: string | undefined
  /** Default: peer.toml in the data folder. */
  readonly configFile?: string | undefined
}

export interface NewPeer {
  readonly name: string
  readonly dataDir: string
  readonly address: string
  readonly configFile: string
  readonly config: Readonly<Record<string, unknown>>
}

const secretFileOf = (dataDir: string): string => join(dataDir, 'secret')

/** What init and join print. */
export interface MadePeer {
  readonly id: string
  readonly name: string
  readonly cluster: string
  readonly configFile: string
}

/**
 * Nothing is written yet. UsageError NEW_PEER_INVALID, NEW_PEER_EXISTS. What an interrupted attempt to join the cluster with
 * id `again` has left may be written over.
 */
export async function planNewPeer(options: NewPeerOptions, cluster: string, again?: string): Promise<NewPeer> {
  const dataDir = resolve(options.dataDir)
  const configFile = resolve(options.configFile ?? join(dataDir, 'peer.toml'))
  const { name, listen, runDir } = options
  const address = options.advertise ?? listen
  const config = {
    cluster: { name: cluster, secretFile: secretFileOf(dataDir) },
    peer: { name, dataDir, ...(runDir === undefined ? {} : { runDir: resolve(runDir) }), listen }
  }
  const parsed = checkConfig(config)
  const problems = parsed.ok ? [] : parsed.problems.map(problemText)
  if (!addressSchema.safeParse(address).success) {
    problems.push(`--advertise: expected ${addressSchema.description}, found ${JSON.stringify(address)}`)
  }
  if (/^\/(ip4\/0\.0\.0\.0|ip6\/::)\//.test(address)) {
    problems.push(`--advertise: expected the address at which other peers reach this one, found ${address}`)
  }
  if (problems.length > 0) {
    const message = `this peer cannot be made:\n${problems.map(problem => `  ${problem}`).join('\n')}`
    throw new UsageError('NEW_PEER_INVALID', message, { details: { problems } })
  }
  const clusterFile = again !== undefined && (await readCluster(dataDir))?.id === again ? [] : [clusterFileOf(dataDir)]
  const there = [configFile, ...clusterFile, join(dataDir, 'peer.json')].find(existsSync)
  if (there !== undefined) {
    throw new UsageError('NEW_PEER_EXISTS', `${there} is there already: give another --data-dir or --config`)
  }
  return { name, dataDir, address, configFile, config }
}

/** The config last, so that a peer without one is one that was not made whole: the command may then be given again. */
export async function writeNewPeer(
  { name, dataDir, configFile, config }: NewPeer,
  made: {
    record: ClusterRecord
    /** Undefined: the cluster gives it its data keys when it runs. */
    secret: Uint8Array | undefined
    settings: Readonly<Record<string, unknown>>
    by: string
  }
): Promise<void> {
  const cluster = { name: made.record.name }
  if (made.secret !== undefined) await writeSecret(secretFileOf(dataDir), made.secret)
  const text = [
    `# Peer "${name}" of cluster "${made.record.name}", made by diapause ${made.by}. Members are not named here: the data folder knows them.`,
    '# Every setting with its range, default and source: config/schema.ts.',
    '',
    stringify({ ...config, ...(made.secret === undefined && { cluster }), ...made.settings })
  ].join('\n')
  makeFolder(dirname(configFile))
  await saveCluster(dataDir, made.record)
  await writeDurably(configFile, text)
}
