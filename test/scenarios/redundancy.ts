/**
 * Hosts that are lost for good under a bank, one lot after the other: epochs while they die, all kept epochs restored, fresh
 * hosts in their stead, redundancy that comes back. For the test, and with more hosts for the benchmark.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { apiSocketPath } from '../../node/edge/api.ts'
import { isWhole, type VerifyReport } from '../../node/edge/redundancy-view.ts'
import { messageOf } from '../../node/errors.ts'
import { type ClusterPeer, loopback } from '../demo/cluster.ts'
import { Bank, calm, GROUP } from './bank.ts'
import { Member } from './member.ts'

/** Longest that a peer may be asked to look at all shards. Far above what a busy machine takes. */
const LIMIT_MS = 60_000

export interface Restored {
  readonly epoch: number
  readonly sound: boolean
}

export class Losses {
  readonly bank: Bank
  readonly #m: number
  readonly #nonces: readonly string[]
  readonly #progress: (line: string) => void

  private constructor(bank: Bank, m: number, nonces: readonly string[], progress: (line: string) => void) {
    this.bank = bank
    this.#m = m
    this.#nonces = nonces
    this.#progress = progress
  }

  /** Five hosts, and two VMs on the first two of them. `keepLast`: as in the config. */
  static async start(
    { k, m, keepLast }: { k: number; m: number; keepLast: number },
    progress: (line: string) => void = () => {}
  ): Promise<Losses> {
    const settings = {
      ...calm,
      shards: { k, m },
      epochs: { intervalMs: 0, retention: { keepLast, hourly: 0, daily: 0, weekly: 0 } },
      // Columns go to those who are left, as soon as that, and to fresh hosts when they come.
      repair: { afterMs: 2_000, checkEveryMs: 500, megabytesPerSecond: 40 }
    }
    const bank = await Bank.start({ peers: 5, settings, vms: 2, memoryMiB: 128 })
    try {
      return new Losses(bank, m, (await bank.audit()).nonces, progress)
    } catch (error) {
      await bank.cluster.stop()
      throw error
    }
  }

  /** Takes so many epochs, with money moved in between. */
  async epochs(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      await this.bank.epoch(this.#someone)
      await this.bank.working()
    }
  }

  /** Kills these hosts, all at once, when an epoch is open; what became of that epoch. */
  async loseDuringEpoch(...names: string[]): Promise<'committed' | 'aborted'> {
    const { bank } = this
    const gone = names.map(name => bank.peer(name))
    const owners = Object.values(await bank.owners())
    const before = (await bank.record()).lastEpoch
    const by = bank.cluster.alive.find(peer => !gone.includes(peer)) as ClusterPeer
    // The epoch may end with its answer: what is restored says more than that.
    const asked = by.client.takeEpoch(GROUP).catch(() => {})
    await bank.until('an open epoch', () =>
      bank.events('epoch.opened').some(each => each.epoch > before) ? true : undefined
    )
    if (names.some(name => owners.includes(name))) await bank.killAndWait(...gone)
    else await Promise.all(gone.map(peer => bank.cluster.killPeer(peer)))
    await asked
    await bank.working()
    const outcome = ((await bank.record()).committed?.epoch ?? 0) > before ? 'committed' : 'aborted'
    this.#progress(`${names.join(' and ')} died when epoch ${before + 1} was open, which was ${outcome}`)
    return outcome
  }

  /** What came of an epoch that is taken when this host has just begun to hang; it goes on when that is decided. */
  async hungDuringEpoch(name: string): Promise<{ commitMs: number; columnsMissing: number }> {
    const { bank } = this
    const peer = bank.peer(name)
    bank.cluster.stopPeer(peer)
    const startMs = performance.now()
    const epoch = await bank.epoch(this.#someone)
    const commitMs = performance.now() - startMs
    bank.cluster.continuePeer(peer)
    await bank.cluster.allConnected(LIMIT_MS)
    const durable = bank.events('epoch.durable').filter(each => each.epoch === epoch)
    const columnsMissing = durable.reduce((sum, { stats }) => sum + (stats.columnsMissing ?? 0), 0)
    this.#progress(
      `epoch ${epoch} committed in ${Math.round(commitMs)} ms while ${name} hung, ${columnsMissing} columns missing`
    )
    return { commitMs, columnsMissing }
  }

  /** Every epoch that is kept, each restored and audited. */
  async restoreAll(): Promise<readonly Restored[]> {
    const { epochs } = await this.#someone.client.epochs(GROUP)
    const all: Restored[] = []
    for (const { epoch } of epochs) {
      await this.bank.goBack(this.#someone, epoch)
      const { money, gaps, broken, faults, nonces } = await this.bank.audit()
      const isSame = nonces.every((nonce, i) => nonce === this.#nonces[i])
      const sound = money === 128_000 && gaps === 0 && broken === 0 && faults.length === 0 && isSame
      all.push({ epoch, sound })
      this.#progress(`epoch ${epoch} is restored, and ${sound ? 'sound' : 'not sound'}`)
    }
    return all
  }

  /** A fresh host in the stead of one that was killed; resolves when it belongs to the cluster and that one does not. */
  async replace(gone: string, name: string): Promise<void> {
    const { cluster, consoles } = this.bank
    const [address = ''] = await loopback(1)
    const home = join(cluster.dir, name)
    mkdirSync(join(home, 'data'), { recursive: true, mode: 0o700 })
    const member = new Member(home, name, address, 'data')
    const id = await this.bank.until(`${name} to be taken in`, async () => {
      const invitation = await this.#someone.client.invite({ replaces: gone }).catch(() => undefined) // voters may be busy
      if (invitation === undefined) return undefined
      const { out } = await member.run('join', invitation.token, ...member.setup)
      return /12D3Koo\w+/.exec(out)?.[0]
    })
    const { dataDir, configFile, client } = member
    const runDir = join(dataDir, 'run')
    const paths = { runDir, configFile, logFile: join(home, 'log'), socketPath: apiSocketPath(runDir) }
    const consoleDir = join(runDir, 'console')
    const peer = { name, id, role: 'storage' as const, host: undefined, dataDir, consoleDir, client, ...paths }
    cluster.adopt(peer)
    cluster.startPeer(peer)
    consoles.watch(consoleDir)
    await cluster.allConnected(LIMIT_MS)
    await this.bank.until(`${gone} to be no member any more`, async () => {
      const { members } = await this.#someone.client.members()
      return members.some(each => each.name === gone) ? undefined : true
    })
    this.#progress(`${name} is there in the stead of ${gone}`)
  }

  /** Waits until no column of what is kept is missing, and any m hosts may be lost; what was seen then, all of it read. */
  async redundant(): Promise<VerifyReport> {
    let seen: VerifyReport | undefined
    try {
      await this.bank.until('full redundancy', async () => {
        seen = await this.#verify(false)
        return isWhole(seen) && seen.images.every(({ tolerates }) => tolerates >= this.#m) ? true : undefined
      })
    } catch (error) {
      throw new Error(`${messageOf(error)}: ${JSON.stringify(seen)}`, { cause: error })
    }
    return await this.#verify(true)
  }

  #verify(deep: boolean): Promise<VerifyReport> {
    return this.#someone.client.verify({ deep }, () => {}, AbortSignal.timeout(LIMIT_MS))
  }

  get #someone(): ClusterPeer {
    const [peer] = this.bank.cluster.alive
    if (peer === undefined) throw new Error('no peer is left')
    return peer
  }
}
