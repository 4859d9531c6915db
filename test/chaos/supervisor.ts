/**
 * Runs one scenario: rounds of faults, and after each a time without any, in which everything has to come back and is looked
 * at. The first broken promise does not end a run, but what never comes back does: there is nothing to break any more.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { messageOf } from '../../node/errors.ts'
import type { VerifyReport } from '../../node/edge/redundancy-view.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { ClusterPeer } from '../demo/cluster.ts'
import { codeFor } from '../demo/cluster.ts'
import type { Stint } from './beat-log.ts'
import { bounded, type Sample } from './bounds.ts'
import { type End, unasked } from './ends.ts'
import { all, beginCounted, type Counts, type Fault, type Heal } from './fault.ts'
import { goBack } from './going-back.ts'
import { hostOf, Listener, moneyMoves, monotonicMs, unheard } from './observers.ts'
import * as promises from './promises.ts'
import { lacking, spoilt, spoiltBy, surplus, triesDisks, unmended, wantedOf } from './redundancy.ts'
import { Rig } from './rig.ts'
import { countLoopAnew, damagedAt, streamsStored, takeSample } from './samples.ts'
import { actionsOf, planRound, type Scenario, type Step } from './scenario.ts'
import { settled } from './settled.ts'
import type { RigTarget } from './target.ts'
import type { Entry, Timeline } from './timeline.ts'

/** Frames that were on their way when an observer is asked. */
const SETTLED_MS = 500
const VERIFY_MS = 60_000
/** Of peers that come up and end again: as long as everything else is waited for. */
const ALL_THERE_MS = 2 * promises.REDUNDANT_MS
/** A false suspicion may come between on a busy machine, and once more. A guess. */
const MOST_AUDITS = 5

export interface RunOptions {
  readonly scenario: Scenario
  readonly faults: ReadonlyMap<string, Fault>
  readonly seed: number
  readonly hosts: number
  /** Ends after the round that is on then. Absent: the scenario says how many rounds. */
  readonly minutes: number | undefined
  readonly timeline: Timeline
  readonly signal: AbortSignal
  /** Called before all is removed; `failed`: a promise was broken. */
  readonly keep: (dir: string, failed: boolean) => Promise<void>
}

export interface Outcome {
  readonly scenario: string
  readonly seed: number
  readonly hosts: number
  readonly hypervisor: string
  readonly rounds: readonly RoundSeen[]
  /** Of all faults that began. */
  readonly counts: Counts
  readonly takeovers: number
  readonly epochs: number
  /** Between the last word of an owner and the first of its successor on another host; null: there was none. */
  readonly shortestSilenceMs: number | null
  readonly samples: readonly Sample[]
  readonly broken: readonly string[]
  readonly entries: readonly Entry[]
  /** With times as those of `entries`. */
  readonly stints: readonly Stint[]
}

export interface RoundSeen {
  readonly steps: readonly Step[]
  /** Since the last heal: until all VMs worked, and until all columns were where they should be; null: never. */
  readonly backMs: number | null
  readonly redundantMs: number | null
}

export async function runScenario(options: RunOptions): Promise<Outcome> {
  const { timeline, scenario, hosts, faults } = options
  const startedMs = monotonicMs()
  const listener = new Listener(timeline)
  const begun: { run?: Run } = {} // while it starts, what ends fails the start
  const rig = await Rig.start({
    hosts,
    faults: scenario.faults.flatMap(name => faults.get(name) ?? []),
    tell: {
      event: seen => listener.event(seen),
      peer: (name, text) => timeline.add('peer', text, { host: hostOf(name) }),
      ended: ({ name, ...end }) => begun.run?.ended({ host: hostOf(name), ...end }),
      unwell: (name, what) => begun.run?.unwell(hostOf(name), what)
    }
  })
  const run = (begun.run = new Run(options, rig, listener))
  let seen: Awaited<ReturnType<Run['all']>> = { hypervisor: '', rounds: [], shortestSilenceMs: null, samples: [] }
  try {
    seen = await run.all()
  } catch (error) {
    run.breaks(`the run ended: ${messageOf(error)}`)
  } finally {
    await options.keep(rig.bank.cluster.dir, run.broken.length > 0).catch(() => {}) // logs are not worth an error
    for (const fault of await rig.stop()) run.breaks(`left behind: ${fault}`)
  }
  const stints = rig.lan.log.vms.flatMap(vm => rig.lan.log.stints(vm))
  return {
    scenario: scenario.name,
    seed: options.seed,
    hosts,
    ...seen,
    counts: run.counts,
    takeovers: listener.takeovers,
    epochs: listener.epochs,
    broken: run.broken,
    entries: timeline.entries,
    stints: stints.map(stint => ({ ...stint, fromMs: stint.fromMs - startedMs, untilMs: stint.untilMs - startedMs }))
  }
}

class Run {
  readonly broken: string[] = []
  readonly counts = { kills: 0, powerLosses: 0, partitions: 0 }
  readonly #options: RunOptions
  readonly #rig: Rig
  readonly #listener: Listener
  readonly #timeline: Timeline
  readonly #samples: Sample[] = []
  #steps: readonly Step[] = []
  #nonces: readonly string[] = []
  #faults = 0
  readonly #startMs = performance.now()

  constructor(options: RunOptions, rig: Rig, listener: Listener) {
    this.#options = options
    this.#rig = rig
    this.#listener = listener
    this.#timeline = options.timeline
    listener.know(new Map(rig.bank.cluster.peers.map(({ id, name }) => [id, name])))
  }

  breaks(what: string): void {
    this.broken.push(what)
    this.#timeline.add('broken', what)
  }

  ended(end: End): void {
    for (const fault of unasked(end, this.#steps)) this.breaks(fault)
  }

  unwell(host: string, what: string): void {
    if (this.#steps.length === 1) this.breaks(`${host}: ${what}`)
    else this.#timeline.add('check', what, { host })
  }

  async all(): Promise<Pick<Outcome, 'hypervisor' | 'rounds' | 'shortestSilenceMs' | 'samples'>> {
    const { scenario, seed, hosts, minutes, signal } = this.#options
    const { hypervisor } = await this.#someone.client.status()
    this.#nonces = (await this.#audit()).nonces
    const rounds: RoundSeen[] = []
    const endMs = minutes === undefined ? undefined : performance.now() + minutes * 60_000
    const goesOn = () => (endMs === undefined ? rounds.length < scenario.rounds : performance.now() < endMs)
    while (goesOn() && !signal.aborted) {
      const steps = planRound(scenario, seed, { number: rounds.length, hosts })
      this.#steps = steps
      this.#timeline.add('round', `round ${rounds.length + 1}`)
      const seen = await this.#round(steps)
      rounds.push({ steps, ...seen })
      if (seen.redundantMs === null) break // it is not well, and what is broken now says nothing
    }
    if (!signal.aborted && rounds.at(-1)?.redundantMs !== null) await this.#tried('going back', () => this.#goBack())
    const peers = this.#rig.targets.map(({ name }) => name)
    // A run that came to nothing has told why already.
    if (rounds.at(-1)?.redundantMs !== null) for (const what of bounded(peers, this.#samples)) this.breaks(what)
    const silences = this.#rig.lan.log.vms.map(vm => promises.shortestSilence(this.#rig.lan.log.stints(vm)))
    const least = Math.min(...silences)
    return { hypervisor, rounds, shortestSilenceMs: Number.isFinite(least) ? least : null, samples: this.#samples }
  }

  /** False where it threw, which is a promise broken: something that had to come did not. */
  async #tried(what: string, action: () => Promise<unknown>): Promise<boolean> {
    return await action().then(
      () => true,
      (error: unknown) => {
        this.breaks(`${what}: ${promises.inWords(error)}`)
        return false
      }
    )
  }

  async #round(steps: readonly Step[]): Promise<Pick<RoundSeen, 'backMs' | 'redundantMs'>> {
    const none = { backMs: null, redundantMs: null }
    if (!(await this.#tried('a fault', () => this.#breakThings(steps)))) return none
    const healedMs = performance.now()
    let backMs = 0
    const comeBack = async (): Promise<void> => {
      await moneyMoves(this.#rig.bank)
      backMs = performance.now() - healedMs
      await this.#allThere()
    }
    if (!(await this.#tried('coming back', comeBack))) {
      await this.#tried('what is left', () => this.#left())
      return none
    }
    this.#judge('all VMs work again', backMs > promises.OBJECTIVE_MS ? ['not within the objective'] : [], backMs)
    this.#seen()
    const looked = await this.#tried('what was promised', () => this.#look())
    if (!looked || !(await this.#tried('redundancy', () => this.#redundant(steps))))
      return { backMs, redundantMs: null }
    const redundantMs = performance.now() - healedMs
    this.#judge('redundancy is full', redundantMs > promises.REDUNDANT_MS ? ['not in time'] : [], redundantMs)
    await this.#tried('what is stored', async () =>
      this.#judge('what no kept epoch needs is dropped', await settled(() => this.#undropped()))
    )
    return { backMs, redundantMs }
  }

  /** Does and undoes, in the order of the plan; undoes all whatever happens. */
  async #breakThings(steps: readonly Step[]): Promise<void> {
    const { faults, signal } = this.#options
    const startMs = performance.now()
    const heals = new Map<Step, Heal>()
    const numbers = new Map(steps.map(step => [step, ++this.#faults]))
    try {
      for (const { atMs, step, heals: heal } of actionsOf(steps)) {
        await sleep(Math.max(0, startMs + atMs - performance.now()))
        if (signal.aborted) return
        const fault = faults.get(step.fault) as Fault
        const target = this.#rig.targets[step.host] as RigTarget
        const about = { host: target.host.name, fault: numbers.get(step) ?? 0 }
        if (heal) {
          await heals.get(step)?.()
          this.#timeline.add('heal', step.fault, about)
          continue
        }
        const lasts = step.lastsMs === 0 ? '' : `, for ${(step.lastsMs / 1000).toFixed(1)} s`
        this.#timeline.add('fault', `${step.fault}: ${fault.about}${lasts}`, about)
        heals.set(step, await beginCounted(fault, target, step, this.counts))
      }
    } finally {
      await all([...heals.values()])()
    }
  }

  /** All peers run and see each other; what a late one has changed by coming back is over. */
  async #allThere(): Promise<void> {
    const { bank, targets } = this.#rig
    const allRun = () => targets.every(target => target.isUp)
    const endMs = performance.now() + ALL_THERE_MS
    do {
      if (performance.now() > endMs || this.#options.signal.aborted) throw new Error('its peers end again and again')
      await bank.until('all peers to run', () => (allRun() ? true : undefined))
      await bank.cluster.allConnected(2 * promises.OBJECTIVE_MS)
    } while (!allRun()) // one that ended meanwhile was not asked
    await moneyMoves(bank)
  }

  /** The group did not come back: whether there is anything that it could come back from. */
  async #left(): Promise<void> {
    const { history } = this.#listener
    this.#judge('committed epochs are what they were', this.#fresh(history.lost()))
    const [newest] = (await this.#someone.client.groups()).map(({ committed }) => committed?.epoch)
    this.#judge('committed epochs are there', promises.committed(history.committed, newest))
    const report = await this.#verify(false)
    // What a host has that is not heard is not lost.
    if (report.silent.length === 0) this.#judge('committed epochs can be read', promises.readable(report.images))
  }

  /** The bank is audited, an epoch is taken, and what the outside has seen is judged. */
  async #look(): Promise<void> {
    const { bank, targets } = this.#rig
    const before = this.#listener.history.committed
    await Promise.all(targets.map(countLoopAnew))
    this.#judge('money is conserved', promises.money(await this.#audit(), this.#nonces))
    const { committed } = await this.#record()
    this.#judge('committed epochs are there', promises.committed(before, committed?.epoch))
    await bank.until('one more epoch', async () =>
      ((await bank.record()).committed?.epoch ?? 0) > before ? true : undefined
    )
    await sleep(SETTLED_MS)
    this.#seen()
    await this.#heard()
    // Of owners before nothing is left that runs: a machine that is paused takes memory, and could be continued.
    const there = () => targets.flatMap(target => target.vms())
    const alone = await settled(() => promises.hypervisors(bank.vms, there()))
    this.#judge('one hypervisor of each VM is there', alone)
    for (const target of targets) this.#samples.push(await takeSample(target, performance.now() - this.#startMs))
  }

  /** Where the group goes back meanwhile, reports of before and after do not fit each other: then once more. */
  async #audit(): Promise<promises.Audit> {
    const { bank } = this.#rig
    for (let times = 0; times < MOST_AUDITS; times++) {
      const { generation } = await this.#record()
      const audit = await bank.audit()
      if ((await this.#record()).generation === generation) return audit
      this.#timeline.add('check', 'the group went back while it was audited: once more')
    }
    throw new Error(
      `the group has gone back ${MOST_AUDITS} times while it was to be audited, and nobody breaks anything`
    )
  }

  /** In a time without faults: what was in the record read before must be in it. */
  async #record(): Promise<GroupRecord> {
    const record = await this.#rig.bank.record()
    this.#listener.record(record)
    return record
  }

  /** Of the whole run: what was told before is not told again. */
  #seen(): void {
    const { log } = this.#rig.lan
    const { history, generations, newestGeneration } = this.#listener
    for (const vm of this.#rig.bank.vms) {
      const stints = log.stints(vm)
      const heard = [...promises.copies(vm, stints, generations, newestGeneration), ...promises.booted(vm, stints)]
      this.#judge(`one copy of ${vm} was heard`, this.#fresh([...heard, ...history.disputes(vm)]))
    }
    this.#judge('committed epochs are what they were', this.#fresh(history.lost()))
  }

  #fresh(faults: readonly string[]): string[] {
    return faults.filter(fault => !this.broken.some(told => told.includes(fault)))
  }

  /** By the observer of the wire, without whom nothing is known of copies. */
  async #heard(): Promise<void> {
    const look = async () => unheard(this.#rig, this.#listener, await this.#record())
    this.#judge('every VM is heard from its host', await settled(look))
  }

  /** What is damaged counts as there until somebody reads it: all is read once, while epochs come and go, and after all is there. */
  async #redundant(steps: readonly Step[]): Promise<void> {
    const { faults } = this.#options
    const harmed = steps.some(({ fault }) => faults.get(fault)?.harms === true)
    const hit = spoiltBy(steps)
    if (harmed) await this.#verify(true)
    await this.#full(false, hit)
    if (harmed || steps.some(({ fault }) => triesDisks(fault))) await this.#full(true, hit)
    await this.#record()
  }

  /** What is stored that no kept epoch needs. */
  async #undropped(): Promise<string[]> {
    const report = await this.#verify(false)
    const { targets } = this.#rig
    const stored = targets.map(async target => ({ host: target.host.name, streams: await streamsStored(target) }))
    return surplus(await Promise.all(stored), report)
  }

  /** `deep`: all is read where it lies. `hit`: members at which a fault has damaged what is stored. */
  async #full(deep: boolean, hit: readonly string[]): Promise<void> {
    let last = ''
    await this.#rig.bank.until(deep ? 'all that is stored to be whole' : 'full redundancy', async () => {
      const lacks = await this.#lacks(deep, hit).catch(messageOf)
      if (lacks !== '' && lacks !== last) this.#timeline.add('check', `redundancy is not full yet: ${lacks}`)
      last = lacks
      return lacks === '' ? true : undefined
    })
  }

  async #lacks(deep: boolean, hit: readonly string[]): Promise<string> {
    const { bank } = this.#rig
    const before = await bank.record()
    const report = await this.#verify(deep)
    if (deep) this.#judge('what is stored was read', this.#fresh(spoilt(report, hit)))
    const lacks = lacking(report, codeFor(this.#options.hosts).m, wantedOf(before, await bank.record()))
    const hurt = deep ? unmended(await Promise.all(this.#rig.targets.map(damagedAt))) : ''
    return [lacks, hurt].filter(each => each !== '').join('; ')
  }

  #verify(deep: boolean): Promise<VerifyReport> {
    return this.#someone.client.verify({ deep }, () => {}, AbortSignal.timeout(VERIFY_MS))
  }

  async #goBack(): Promise<void> {
    this.#steps = [] // the faults of the last round are over: they excuse no end of a peer from here on
    await this.#full(true, [])
    await goBack({
      rig: this.#rig,
      listener: this.#listener,
      seed: this.#options.seed,
      nonces: this.#nonces,
      timeline: this.#timeline,
      client: () => this.#someone.client,
      audit: () => this.#audit(),
      judge: (what, faults) => this.#judge(what, faults)
    })
    await this.#allThere()
    await sleep(SETTLED_MS)
    this.#seen()
    await this.#heard()
  }

  #judge(what: string, faults: readonly string[], ms?: number): void {
    const took = ms === undefined ? '' : ` after ${(ms / 1000).toFixed(1)} s`
    if (faults.length === 0) this.#timeline.add('check', `${what}${took}`)
    for (const fault of faults) this.breaks(`${what}${took}: ${fault}`)
  }

  get #someone(): ClusterPeer {
    const [peer] = this.#rig.bank.cluster.alive
    if (peer === undefined) throw new Error('no peer is left')
    return peer
  }
}
