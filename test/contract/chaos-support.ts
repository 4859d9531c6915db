/** What faults are tried on without a cluster: a host with a program in place of its peer, and a disk of its own. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once as event } from 'node:events'
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'vitest'
import { hierarchyFor } from '../chaos/faults/groups.ts'
import { type Disk, type Heal, once, type Target } from '../chaos/fault.ts'
import { tree } from '../demo/processes.ts'
import { type Host, Hosts } from '../hosts/hosts.ts'
import { generator } from '../sim/kernel.ts'
import { withDirectory } from '../unit/store-support.ts'

export interface PatientOptions {
  readonly hosts: Hosts
  readonly host: Host
  /** An empty folder. */
  readonly dir: string
  readonly disk: Disk
  /** In place of the peer: Node's arguments. Default: nothing runs. */
  readonly program?: readonly string[]
  readonly environment?: NodeJS.ProcessEnv
  /** What faults draw. Default: as a generator with seed 1. */
  readonly random?: () => number
}

export class Patient implements Target {
  readonly name: string
  readonly hosts: Hosts
  readonly host: Host
  readonly disk: Disk
  readonly dataDir: string
  readonly scratchDir: string
  readonly others: Target[] = []
  random: () => number
  /** Processes that it runs beside its program. */
  readonly besides: number[] = []
  /** Lines that the program has said, in all its lives. */
  readonly lines: string[] = []
  readonly #own: readonly string[] | undefined
  #program: readonly string[] | undefined
  readonly #environment: NodeJS.ProcessEnv
  #child: ChildProcess | undefined

  private constructor({ hosts, host, dir, disk, program, environment, random }: PatientOptions) {
    this.name = host.name.replace('h', 'p')
    this.hosts = hosts
    this.host = host
    this.disk = disk
    this.dataDir = join(disk.mounted, 'data')
    this.scratchDir = join(dir, `${host.name}-scratch`)
    this.random = random ?? generator(1)
    this.#own = program
    this.#program = program
    this.#environment = { ...process.env, ...environment }
  }

  static async make(options: PatientOptions): Promise<Patient> {
    const patient = new Patient(options)
    await mkdir(patient.dataDir, { recursive: true })
    await mkdir(patient.scratchDir, { recursive: true })
    await patient.#start()
    return patient
  }

  peerPid(): number | undefined {
    return this.#child?.exitCode === null && this.#child.signalCode === null ? this.#child.pid : undefined
  }

  /** How the program ended last. */
  get endedBy(): NodeJS.Signals | null | undefined {
    return this.#child?.signalCode
  }

  qemuPids(): number[] {
    return []
  }

  pids(): number[] {
    const pid = this.peerPid()
    return [...(pid === undefined ? [] : tree(pid)), ...this.besides]
  }

  async halt(): Promise<Heal> {
    const child = this.#child
    if (child !== undefined && this.peerPid() !== undefined) {
      const ended = event(child, 'exit')
      child.kill('SIGKILL')
      await ended
    }
    return once(() => this.#start())
  }

  async restart(program: string | undefined): Promise<void> {
    const start = await this.halt()
    this.#program = program === undefined ? this.#own : [program, '--version']
    await start()
  }

  unwell(what: string): void {
    throw new Error(what)
  }

  async waits(): Promise<readonly string[]> {
    return []
  }

  async #start(): Promise<void> {
    if (this.#program === undefined) return
    const where = [...this.hosts.on(this.host), 'setpriv', '--pdeathsig', 'KILL', process.execPath]
    const [command = '', ...args] = [...where, ...this.#program]
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'], env: this.#environment })
    this.#child = child
    const heard = event(child.stdout, 'data')
    child.stdout.setEncoding('utf8').on('data', (text: string) => this.lines.push(...text.trimEnd().split('\n')))
    await heard
  }
}

/** What it says from now on, until that is as wanted. */
export async function says(patient: Patient, wanted: (line: string) => boolean): Promise<string> {
  const from = patient.lines.length
  const found = (): string | undefined => patient.lines.slice(from).find(wanted)
  await expect.poll(found, { timeout: 30_000 }).toBeDefined()
  return found() ?? ''
}

/** A host of its own with a program in place of its peer; both are gone afterwards. */
export async function withPatient(
  options: Pick<PatientOptions, 'program' | 'random'> & {
    readonly environment?: (scratchDir: string) => Promise<NodeJS.ProcessEnv>
  },
  use: (patient: Patient, dir: string) => Promise<void>
): Promise<void> {
  const { environment = async () => ({}), ...rest } = options
  const hosts = await Hosts.make(1)
  try {
    const [host] = hosts.all
    if (host === undefined) throw new TypeError('there is one')
    await withDirectory(async dir => {
      const made = await environment(join(dir, `${host.name}-scratch`))
      const patient = await Patient.make({ hosts, host, dir, disk: noDisk(dir), environment: made, ...rest })
      try {
        await use(patient, dir)
      } finally {
        await patient.halt()
      }
    })
  } finally {
    await hosts.remove()
  }
}

/** Nobody may ask it for anything: for faults that leave disks alone. */
export function noDisk(dir: string): Disk {
  const none = (): never => {
    throw new TypeError('there is no disk')
  }
  return { type: 'ext4', mounted: dir, image: '', device: none, mount: none, unmount: none }
}

/** What limits reads of disks now, and what limits writes: a line for each device, which it begins with. */
export async function diskLimits(): Promise<string[]> {
  const { version, root } = hierarchyFor('disk')
  const read = (path: string): Promise<string> => readFile(join(root, path), 'utf8')
  if (version === 1) return await Promise.all(['read', 'write'].map(way => read(`blkio.throttle.${way}_bps_device`)))
  const groups = (await readdir(root)).filter(name => name.startsWith('diapause-chaos-'))
  return [(await Promise.all(groups.map(name => read(`${name}/io.max`)))).join('')]
}
