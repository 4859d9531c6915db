/** Scenarios in which a planted mistake must show: few faults, where it hurts most. Pure, as all scenarios. */
import type { Draw, Scenario, Step, Turn } from '../scenario.ts'

/** An epoch is taken every 4 s: a fault comes at any time before the next one, or into it. */
const SPREAD_MS = 4_000

/** Host after host: VMs begin on h1 and h2, and one that loses its host goes to the third. */
const each = (name: string, fault: string, rounds: number, lastsMs: number): Scenario => ({
  name,
  about: `${fault} on one host after the other`,
  faults: [fault],
  rounds,
  round: (draw: Draw, { number, hosts }: Turn): Omit<Step, 'seed'>[] => [
    { atMs: draw.between(0, SPREAD_MS), fault, host: number % hosts, lastsMs }
  ]
})

/**
 * A VM's host dies, and comes back after its VM was restored elsewhere. Rounds enough for mistakes that are in some cuts only, and
 * only that which is restored from shows it.
 */
export const hostsDie = each('hosts-die', 'kill-host', 24, 4_000)
/**
 * Frames overtake what is said of a cut, on the lines of two hosts, one of which has a VM at least: so that in many cuts some are early.
 * Then a peer dies, by when an epoch or two are of such cuts, and what they hold is what goes on.
 */
export const peersDieOnBadLines: Scenario = {
  name: 'peers-die-on-bad-lines',
  about: 'frames of two hosts overtake each other, and a peer is killed',
  faults: ['jitter', 'kill-peer'],
  rounds: 6,
  round: (draw, { number, hosts }) =>
    [0, 1, 2].flatMap(turn => {
      const [atMs, host] = [22_000 * turn, (number + turn) % hosts]
      return [
        { atMs, fault: 'jitter', host, lastsMs: 10_000 },
        { atMs, fault: 'jitter', host: (host + 1) % hosts, lastsMs: 10_000 },
        {
          atMs: atMs + 6_000 + draw.between(0, SPREAD_MS),
          fault: 'kill-peer',
          host: draw.between(0, hosts - 1),
          lastsMs: 0
        }
      ]
    })
}
/** From the disks of all. */
export const allLosePower = each('all-lose-power', 'all-power-loss', 2, 500)
export const allDie = each('all-die', 'kill-all-hosts', 2, 500)
/**
 * The last write before it is a commit in about two of three rounds, and else one that nobody misses. By the second fault other
 * epochs were committed: who looks then only at the newest number sees that it has grown.
 */
export const allDieAndGoOn: Scenario = {
  name: 'all-die-and-go-on',
  about: 'all hosts are killed, and a peer when their VMs have worked for a while',
  faults: ['kill-all-hosts', 'kill-peer'],
  rounds: 5,
  round: (draw, { number, hosts }) => [
    { atMs: draw.between(0, SPREAD_MS), fault: 'kill-all-hosts', host: 0, lastsMs: 500 },
    { atMs: 60_000, fault: 'kill-peer', host: number % hosts, lastsMs: 0 }
  ]
}
/** Until they were declared dead (2 to 6 s on a busy machine), and their VMs run elsewhere. */
export const peersStop = each('peers-stop', 'stop-peer', 4, 12_000)
export const hostsAreCutOff = each('hosts-are-cut-off', 'cut-off', 2, 12_000)
/** Of the files that columns lie in: as often as one is hit, some day, that is needed for longer than its repair may take. */
export const filesEndEarly = each('files-end-early', 'truncation', 24, 0)
export const peersDie = each('peers-die', 'kill-peer', 1, 0)
/** Two epochs and more in each. */
export const peersDieAgain = each('peers-die-again', 'kill-peer', 8, 0)
