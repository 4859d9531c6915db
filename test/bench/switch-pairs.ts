/**
 * The three ways between two real VMs that `switch` compares, all up at the same time, so that their rounds can take turns:
 * through two peers, through one peer (which are processes of a cluster with default settings), and a socket between two
 * QEMUs with the same command line. The guest is `speed.c`; whoever is not asked just now sleeps.
 */
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Accel, machineArguments } from '../../node/hypervisor/command-line.ts'
import { typeOn } from '../../node/hypervisor/console.ts'
import { type QemuProcess, spawnQemu } from '../../node/hypervisor/process.ts'
import { Cluster } from '../demo/cluster.ts'
import { bankVm, buildGuest, type Guest } from '../guest/build.ts'
import { parseSpeed, type SpeedReport } from '../guest/speed.ts'

const GROUP = 'speed'
const MEMORY_MIB = 96
/** Links take large frames; a stream with small segments sends small ones. */
const MTU = 9000
/** Longest wait for a cluster or a boot; several times what a busy machine took. */
const LIMIT_MS = 60_000
const POLL_MS = 25

/** VM 1 measures. */
interface Vm {
  /** Where its console is kept. */
  readonly log: string
  type(line: string): Promise<void>
}

/** Between `from` and the VM with the number `to`. */
export interface Pair {
  readonly name: string
  readonly from: Vm
  readonly to: number
  /** Of the peers whose switch a frame between them passes. */
  readonly peerPids: readonly number[]
}

const specOf = (guest: Guest, index: number) =>
  bankVm(guest, { index, total: 3, memoryMiB: MEMORY_MIB, mtu: MTU, run: 'speed' })

/** By name; `stop` tells what was left behind. */
export interface Pairs {
  readonly two: Pair
  readonly one: Pair
  readonly none: Pair
  readonly accel: string
  stop(): Promise<string[]>
}

export async function startPairs(progress: (line: string) => void): Promise<Pairs> {
  const guest = await buildGuest({ progress })
  progress('a cluster of two peers with three VMs, and two VMs without any')
  const peers = await startPeers(guest)
  try {
    const bare = await BackToBack.start(guest, peers.accel)
    const stop = async () => {
      await bare.stop()
      return await peers.stop()
    }
    try {
      await Promise.all([...peers.vms, ...bare.vms].map(vm => answerOf(vm, 0)))
      return { ...peers.pairs, none: bare.pair, accel: peers.accel, stop }
    } catch (error) {
      await bare.stop()
      throw error
    }
  } catch (error) {
    await peers.stop()
    throw error
  }
}

let commands = 0

/** Tells the pair's first VM to measure: `stream …` or `ping …`, the arguments without the command's number and the VM. */
export async function measureBy({ from, to }: Pair, what: 'stream' | 'ping', ...args: number[]): Promise<SpeedReport> {
  const id = ++commands
  await from.type(`${what} ${id} ${to} ${args.join(' ')}`)
  const report = await answerOf(from, id)
  if (report.kind !== what) throw new Error(`${what} between two VMs failed with errno ${report.value('error')}`)
  return report
}

async function answerOf({ log }: Vm, id: number): Promise<SpeedReport> {
  for (const deadlineMs = performance.now() + LIMIT_MS; performance.now() < deadlineMs; await sleep(POLL_MS)) {
    const text = existsSync(log) ? await readFile(log, 'latin1') : ''
    const answer = parseSpeed(text).find(report => report.id === id)
    if (answer !== undefined) return answer
  }
  throw new Error(`a VM did not answer within ${LIMIT_MS / 1000} s; its console is ${log}`)
}

// ---------------------------------------------------------------------------------------------- through peers

/** VM 1 and VM 2 on p1, VM 3 on p2. RAM is QEMU's own, as without a peer. */
async function startPeers(guest: Guest) {
  const cluster = await Cluster.create({
    peers: 2,
    settings: { shards: { k: 1, m: 1 }, epochs: { intervalMs: 0 }, hypervisor: { capture: 'portable' } }
  })
  try {
    for (const peer of cluster.peers) cluster.startPeer(peer)
    await cluster.allConnected(LIMIT_MS)
    const [p1, p2] = cluster.peers
    if (p1 === undefined || p2 === undefined) throw new Error('a cluster of two has two peers')
    const owners = { vm1: 'p1', vm2: 'p1', vm3: 'p2' }
    await p1.client.createGroup({ id: GROUP, vms: [1, 2, 3].map(index => specOf(guest, index)), owners })
    const { hypervisor } = await p1.client.status()
    const vmOf = (index: number, peer = p1): Vm => ({
      log: join(peer.consoleDir, `${GROUP}.vm${index}.log`),
      type: line => peer.client.typeConsole(GROUP, `vm${index}`, `${line}\n`)
    })
    const from = vmOf(1)
    const [first, second] = [cluster.pidOf(p1), cluster.pidOf(p2)]
    return {
      vms: [from, vmOf(2), vmOf(3, p2)],
      pairs: {
        two: { name: 'two peers', from, to: 3, peerPids: [first, second] },
        one: { name: 'one peer', from, to: 2, peerPids: [first] }
      },
      accel: hypervisor.includes('kvm') ? 'kvm' : 'tcg',
      stop: async () => {
        await p1.client.removeGroup(GROUP)
        return await cluster.stop()
      }
    } as const
  } catch (error) {
    await cluster.stop()
    throw error
  }
}

// ---------------------------------------------------------------------------------------------- without

/** Two QEMUs as a peer starts them, but for the monitor, and that the first one's NIC listens for the second's. */
class BackToBack {
  readonly #dir: string
  readonly #processes: QemuProcess[] = []

  private constructor(dir: string) {
    this.#dir = dir
  }

  static async start(guest: Guest, accel: Accel): Promise<BackToBack> {
    const pair = new BackToBack(await mkdtemp(join(tmpdir(), 'diapause-bench-')))
    try {
      await pair.#boot(guest, accel, 1)
      await pair.#boot(guest, accel, 2)
      return pair
    } catch (error) {
      await pair.stop()
      throw error
    }
  }

  get vms(): Vm[] {
    return [this.#vm(1), this.#vm(2)]
  }

  get pair(): Pair {
    return { name: 'QEMU to QEMU', from: this.#vm(1), to: 2, peerPids: [] }
  }

  async stop(): Promise<void> {
    for (const qemu of this.#processes) qemu.kill()
    await Promise.all(this.#processes.map(({ exited }) => exited))
    await rm(this.#dir, { recursive: true, force: true })
  }

  async #boot(guest: Guest, accel: Accel, index: number): Promise<void> {
    const home = join(this.#dir, `vm${index}`)
    await mkdir(home)
    const nic = join(this.#dir, 'net')
    const paths = { qmp: '', consoleLog: join(home, 'log') }
    const args = machineArguments({
      accel,
      guest: `bench:${index}`,
      spec: specOf(guest, index),
      ends: [{ kind: 'stream', path: nic }],
      paths,
      incoming: false,
      sharedRam: false
    })
    args.splice(args.indexOf('-qmp'), 2)
    const netdev = args.indexOf('-netdev') + 1
    if (index === 1) args[netdev] = args[netdev]?.replace('server=off', 'server=on') ?? ''
    this.#processes.push(await spawnQemu('qemu-system-x86_64', args))
    while (index === 1 && !existsSync(nic)) await sleep(POLL_MS)
  }

  #vm(index: number): Vm {
    const home = join(this.#dir, `vm${index}`)
    return {
      log: join(home, 'log'),
      type: async line => typeOn((this.#processes[index - 1] as QemuProcess).input, `${line}\n`)
    }
  }
}
