/**
 * A soak: nothing is broken, epochs are taken one after the other, and what each peer takes of its host is written down. What grows a
 * little with every epoch is seen here and nowhere else.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { messageOf } from '../../node/errors.ts'
import type { Stint } from './beat-log.ts'
import type { Sample } from './bounds.ts'
import { hostOf, Listener, moneyMoves, monotonicMs, unheard } from './observers.ts'
import { booted, copies, hypervisors, money } from './promises.ts'
import { Rig } from './rig.ts'
import { takeSample } from './samples.ts'
import { settled } from './settled.ts'
import type { SoakSeen } from './soak-judge.ts'
import type { RunOptions } from './supervisor.ts'

/** Twelve of a minute make a median. */
const SAMPLE_MS = 5_000
const TELL_MS = 60_000

export interface SoakOptions extends Pick<RunOptions, 'hosts' | 'timeline' | 'signal' | 'keep'> {
  readonly minutes: number
  readonly intervalMs: number
}

export interface SoakOutcome extends SoakSeen {
  readonly hosts: number
  readonly hypervisor: string
  /** With times as those of the timeline. */
  readonly stints: readonly Stint[]
}

export async function runSoak(options: SoakOptions): Promise<SoakOutcome> {
  const { hosts, minutes, intervalMs, timeline, signal } = options
  const startedMs = monotonicMs()
  const broken: string[] = []
  const breaks = (what: string) => {
    broken.push(what)
    timeline.add('broken', what)
  }
  const listener = new Listener(timeline)
  let working = false
  const rig = await Rig.start({
    hosts,
    faults: [],
    epochMs: intervalMs,
    tell: {
      event: seen => listener.event(seen),
      peer(name, what) {
        timeline.add('peer', what, { host: hostOf(name) })
        if (working) breaks(`${hostOf(name)}: ${what}`)
      }
    }
  })
  listener.know(new Map(rig.bank.cluster.peers.map(({ id, name }) => [id, name])))
  const samples: Sample[] = []
  let hypervisor = ''
  let epochs = 0
  try {
    working = true
    hypervisor = (await rig.bank.cluster.alive[0]?.client.status())?.hypervisor ?? ''
    const { nonces } = await rig.bank.audit()
    const before = listener.epochs
    const startMs = performance.now()
    await watch(rig, { minutes, signal, samples, listener, tell: what => timeline.add('check', what) })
    // What was taken meanwhile says nothing where somebody has interrupted it.
    epochs = listener.epochs - before
    timeline.add('check', `${epochs} epochs in ${Math.round((performance.now() - startMs) / 1000)} s`)
    await moneyMoves(rig.bank)
    for (const fault of money(await rig.bank.audit(), nonces)) breaks(`money is conserved: ${fault}`)
    // Nobody broke anything: who was taken over was taken for dead, and was not.
    if (listener.takeovers > 0) breaks(`the group was taken over: ${listener.takeovers} times`)
    for (const fault of listener.history.lost()) breaks(`committed epochs are what they were: ${fault}`)
    for (const fault of heardTwice(rig, listener)) breaks(`one copy was heard: ${fault}`)
    for (const fault of await settled(async () => unheard(rig, listener, await rig.bank.record())))
      breaks(`every VM is heard: ${fault}`)
    for (const fault of hypervisors(
      rig.bank.vms,
      rig.targets.flatMap(target => target.vms())
    ))
      breaks(fault)
  } catch (error) {
    breaks(messageOf(error))
  } finally {
    working = false
    await options.keep(rig.bank.cluster.dir, broken.length > 0).catch(() => {}) // logs are not worth an error
    for (const fault of await rig.stop()) breaks(`left behind: ${fault}`)
  }
  const peers = rig.targets.map(({ name }) => name)
  const heard = rig.lan.log.vms.flatMap(vm => rig.lan.log.stints(vm))
  const stints = heard.map(each => ({ ...each, fromMs: each.fromMs - startedMs, untilMs: each.untilMs - startedMs }))
  return { hosts, hypervisor, minutes, intervalMs, peers, samples, epochs, broken, stints }
}

const heardTwice = ({ lan, bank }: Rig, { generations, newestGeneration, history }: Listener): string[] =>
  bank.vms.flatMap(vm => {
    const stints = lan.log.stints(vm)
    return [...copies(vm, stints, generations, newestGeneration), ...booted(vm, stints), ...history.disputes(vm)]
  })

interface Watch {
  readonly minutes: number
  readonly signal: AbortSignal
  readonly samples: Sample[]
  readonly listener: Listener
  tell(what: string): void
}

async function watch(rig: Rig, { minutes, signal, samples, listener, tell }: Watch): Promise<void> {
  const startMs = performance.now()
  let toldMs = Number.NEGATIVE_INFINITY
  for (let atMs = 0; atMs < minutes * 60_000 && !signal.aborted; atMs = performance.now() - startMs) {
    const now = await Promise.all(rig.targets.map(target => takeSample(target, atMs)))
    samples.push(...now)
    // So often that two records have epochs in common: images are held against those that had their number.
    listener.record(await rig.bank.record())
    if (atMs - toldMs >= TELL_MS) {
      toldMs = atMs
      tell(now.map(told).join('; '))
    }
    await sleep(SAMPLE_MS, undefined, { signal }).catch(() => {}) // told to end
  }
}

const told = ({ peer, rssMiB, heapMiB, heapTakenMiB, externalMiB, descriptors, storedMiB }: Sample): string =>
  `${peer} ${rssMiB.toFixed(0)} MiB (heap ${heapMiB.toFixed(0)} of ${heapTakenMiB.toFixed(0)}, buffers ${externalMiB.toFixed(0)}), ${descriptors} descriptors, ${storedMiB.toFixed(0)} MiB stored`
