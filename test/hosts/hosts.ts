/**
 * Hosts on one machine: network namespaces with addresses of their own on one switch, for peers that are to lose each
 * other. A process runs on a host by a prefix to its command (`on`); its files are where they always are, but for folders
 * that are each host's own (`own`).
 *
 * A namespace here has no name: it lives as long as a process in it. One holder a host waits for the end of its standard
 * input, which comes when this process ends, whatever ended it; so nothing stays behind but the folder, and folders of
 * makers that are gone are removed by the next `make`. Root is not needed where users may make namespaces.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readlinkSync } from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { cwd } from 'node:process'
import { DiapauseError, messageOf, UsageError } from '../../node/errors.ts'
import { killAll, type ProcessFacts, processes, waitUntil } from '../demo/processes.ts'

export interface Host {
  readonly name: string
  /** IPv4. */
  readonly address: string
  /** Its interface on the switch. */
  readonly port: string
}

/** A MAC address that nobody has: what is sent to it is lost, and its sender does not notice. */
const NOBODY = '02:00:00:00:00:01'
const FOLDER = 'diapause-hosts-'
/** For namespaces to appear and for processes to be gone: 10 ms on a quiet machine. */
const LIMIT_MS = 10_000

/** Programs and the Debian packages they are in. */
const tools = { ip: 'iproute2', nsenter: 'util-linux', unshare: 'util-linux', setpriv: 'util-linux' } as const

export interface HostsOptions {
  /** Folders, by absolute path, that are each host's own and empty at first, whether this machine has them or not. */
  readonly own?: readonly string[]
  /** The same, but one for all hosts, as a file server has them. */
  readonly shared?: readonly string[]
}

/**
 * Arguments by threes: a folder, where it is to be seen, a folder for a mirror. A place that this machine lacks is made without
 * touching the machine: its parent is covered by a mirror, into which all that the parent holds is mounted. Then waits.
 */
const OWN_FOLDERS = `
while [ $# -gt 0 ]; do
  folder=$1 place=$2 mirror=$3; shift 3
  mkdir -p "$folder" "$mirror"
  if [ ! -d "$place" ]; then
    parent=$(dirname "$place")
    while [ ! -d "$parent" ]; do parent=$(dirname "$parent"); done
    for entry in "$parent"/* "$parent"/.[!.]*; do
      copy=$mirror/\${entry##*/}
      if [ -L "$entry" ]; then cp -P "$entry" "$copy"
      elif [ -d "$entry" ]; then mkdir "$copy"; mount --rbind "$entry" "$copy"
      elif [ -e "$entry" ]; then : > "$copy"; mount --bind "$entry" "$copy"
      fi
    done
    mkdir -p "$mirror/\${place#"$parent"/}"
    mount --rbind "$mirror" "$parent"
  fi
  mount --bind "$folder" "$place"
done
exec cat`

export class Hosts {
  /** One folder for the data of all hosts; removed with them. */
  readonly dir: string
  readonly all: readonly Host[]
  readonly #holders: readonly ChildProcess[]
  /** Hosts have mounts of their own. */
  readonly #mounts: boolean
  /** What undoes each that is broken now. */
  readonly #broken = new Set<() => Promise<void>>()
  /** How often the same is broken at a time: a host's name, or two with ">" between. */
  readonly #times = new Map<string, number>()

  private constructor(dir: string, all: readonly Host[], holders: readonly ChildProcess[], mounts: boolean) {
    this.dir = dir
    this.all = all
    this.#holders = holders
    this.#mounts = mounts
  }

  /** h1 to hN at 10.77.0.1 to 10.77.0.N. UsageError HOSTS_TOOLS, HOSTS_FORBIDDEN with what to do. */
  static async make(count: number, { own = [], shared = [] }: HostsOptions = {}): Promise<Hosts> {
    needTools()
    await removeLeftovers()
    const dir = await mkdtemp(join(tmpdir(), `${FOLDER}${ownName(process.pid)}-`))
    const holders: ChildProcess[] = []
    const all = Array.from({ length: count }, (_, i) => `${i + 1}`).map(number => ({
      name: `h${number}`,
      address: `10.77.0.${number}`,
      port: `p${number}`
    }))
    const hosts = new Hosts(dir, all, holders, own.length + shared.length > 0)
    try {
      holders.push(await hold([]))
      for (const { name, port, address } of all) {
        const places = [...own.map(place => ({ place, of: name })), ...shared.map(place => ({ place, of: 'shared' }))]
        const folders = places.flatMap(({ place, of }, i) => [
          join(dir, of, place),
          place,
          join(dir, `${name}-mirror${i}`)
        ])
        const holder = await hold(hosts.#asOwner(), folders)
        holders.push(holder)
        await hosts.ip(hosts.onSwitch, [`link add ${port} type veth peer name eth0 netns ${holder.pid}`])
        const up = ['link set lo up', `addr add ${address}/24 dev eth0`, 'link set eth0 up']
        await hosts.ip(hosts.#in(holder), up)
      }
      // Multicast goes to everyone (mDNS): with snooping only to those who asked a router, and there is none.
      const bridge = ['link set lo up', 'link add br0 type bridge mcast_snooping 0', 'link set br0 up']
      await hosts.ip(hosts.onSwitch, [...bridge, ...all.map(({ port }) => `link set ${port} master br0 up`)])
      return hosts
    } catch (error) {
      await hosts.remove()
      throw error
    }
  }

  /** The words before a command that is to run on the host. They replace themselves by it: its pid is the pid. */
  on(host: Host): string[] {
    const holder = this.#holders[this.all.indexOf(host) + 1]
    return [...this.#in(holder), ...(this.#mounts ? [`--mount=/proc/${holder?.pid}/ns/mnt`, `--wdns=${cwd()}`] : [])]
  }

  /** The same for the switch, where the traffic of all hosts passes; every host's `port` is there. */
  get onSwitch(): string[] {
    return this.#in(this.#holders[0])
  }

  /**
   * The switch forwards nothing more from or to the host. Its own link stays up, as with a broken switch beyond. What came
   * back undoes it; the host is back when everybody who has cut it off has undone that.
   */
  async cutOff(host: Host): Promise<() => Promise<void>> {
    const [line, back] = [`link set ${host.port} nomaster`, `link set ${host.port} master br0`]
    return this.#break(host.name, { line, back, where: this.onSwitch })
  }

  /** What `from` sends to `to` is lost; the other way goes on. What came back undoes it, as with `cutOff`. */
  async block(from: Host, to: Host): Promise<() => Promise<void>> {
    const neighbour = `${to.address} dev eth0`
    const [line, back] = [`neigh replace ${neighbour} lladdr ${NOBODY} nud permanent`, `neigh del ${neighbour}`]
    return this.#break(wayOf(from, to), { line, back, where: this.on(from) })
  }

  /** What `from` sends gets to `to`: neither `cutOff` nor `block` is in its way now. */
  reaches(from: Host, to: Host): boolean {
    return [from.name, to.name, wayOf(from, to)].every(key => (this.#times.get(key) ?? 0) === 0)
  }

  /** Everybody reaches everybody again. */
  async heal(): Promise<void> {
    for (const undo of this.#broken) await undo()
  }

  /** `line` and `back`: what ip is told where it is broken first, and where it is undone last. */
  async #break(
    key: string,
    { line, back, where }: { line: string; back: string; where: readonly string[] }
  ): Promise<() => Promise<void>> {
    const times = this.#times.get(key) ?? 0
    this.#times.set(key, times + 1)
    try {
      if (times === 0) await this.ip(where, [line])
    } catch (error) {
      this.#times.set(key, (this.#times.get(key) ?? 1) - 1) // nothing was broken
      throw error
    }
    const undo = async (): Promise<void> => {
      if (!this.#broken.delete(undo)) return
      const left = (this.#times.get(key) ?? 1) - 1
      this.#times.set(key, left)
      if (left === 0) await this.ip(where, [back])
    }
    this.#broken.add(undo)
    return undo
  }

  /** One more cable: `name` at the host, `port` at the switch, both down and on no bridge. */
  async cable(host: Host, name: string, port: string): Promise<void> {
    const holder = this.#holders[this.all.indexOf(host) + 1]
    await this.ip(this.onSwitch, [`link add ${port} type veth peer name ${name} netns ${holder?.pid}`])
  }

  /** What runs on the host. */
  running(host: Host): ProcessFacts[] {
    const holder = this.#holders[this.all.indexOf(host) + 1]?.pid
    const space = networkOf(holder)
    return processes().filter(({ pid }) => pid !== holder && networkOf(pid) === space)
  }

  /** Ends what still runs on the hosts, then they are gone, and the folder. What came back are processes that stayed. */
  async remove(): Promise<string[]> {
    const spaces = this.#holders.map(({ pid }) => networkOf(pid)).filter(space => space !== undefined)
    const holders = this.#holders.map(({ pid }) => pid)
    const left = () => processes().filter(({ pid }) => !holders.includes(pid) && spaces.includes(networkOf(pid) ?? ''))
    killAll(left().map(({ pid }) => pid))
    await waitUntil(() => left().length === 0, LIMIT_MS)
    const faults = left().map(({ pid, command }) => `process ${pid} survived kill -9: ${command.slice(0, 100)}`)
    for (const holder of this.#holders) {
      if (holder.exitCode !== null || holder.signalCode !== null) continue
      const ended = once(holder, 'exit')
      holder.stdin?.end()
      await ended
    }
    await rm(this.dir, { recursive: true, force: true })
    return faults
  }

  #in(holder: ChildProcess | undefined): string[] {
    const network = `--net=/proc/${holder?.pid}/ns/net`
    return isRoot() ? ['nsenter', network] : [...this.#asOwner(), network]
  }

  /** Where we are not root, all namespaces belong to the user namespace of the first. */
  #asOwner(): string[] {
    return isRoot() ? [] : ['nsenter', '--preserve-credentials', `--user=/proc/${this.#holders[0]?.pid}/ns/user`]
  }

  /** Runs commands of ip, one a line. `where`: `on` or `onSwitch`. */
  async ip(where: readonly string[], lines: readonly string[]): Promise<void> {
    const [command, ...args] = [...where, 'ip', '-batch', '-']
    const child = spawn(command, args, { stdio: ['pipe', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.on('data', (part: Buffer) => (said += part.toString()))
    child.stdin.end(`${lines.join('\n')}\n`)
    const [code] = (await once(child, 'close')) as [number | null]
    if (code !== 0) throw new DiapauseError('HOSTS_IP', `ip failed (${said.trim()}) at: ${lines.join('; ')}`)
  }
}

const wayOf = (from: Host, to: Host): string => `${from.name}>${to.name}`

const isRoot = (): boolean => process.getuid?.() === 0

/** A process in a new network namespace that ends with its standard input. `where`: words before its command. */
async function hold(where: readonly string[], folders: readonly string[] = []): Promise<ChildProcess> {
  const user = isRoot() || where.length > 0 ? [] : ['--user', '--map-root-user']
  const program = folders.length === 0 ? ['cat'] : ['--mount', 'sh', '-ec', OWN_FOLDERS, 'sh', ...folders]
  const [command = '', ...args] = [...where, 'unshare', ...user, '--net', ...program]
  const child = spawn(command, args, { stdio: 'pipe' })
  let said = ''
  child.stderr.on('data', (part: Buffer) => (said += part.toString()))
  child.stdin.on('error', () => {}) // it ended already; the exit says so
  child.stdin.write('ready\n')
  // cat answers, so unshare has done its work and become it, and folders are where they are to be.
  const ready = await Promise.race([
    once(child.stdout, 'data').then(() => true),
    once(child, 'close').then(() => false)
  ])
  if (ready) return child
  throw new UsageError(
    'HOSTS_FORBIDDEN',
    `network namespaces cannot be made here (${said.trim()}): run as root; in a container give it CAP_SYS_ADMIN and CAP_NET_ADMIN`
  )
}

function needTools(): void {
  const missing = Object.entries(tools).filter(([name]) => spawnSync(name, ['--version']).error !== undefined)
  if (missing.length === 0) return
  const packages = [...new Set(missing.map(([, name]) => name))].join(' ')
  const names = missing.map(([name]) => name).join(' and ')
  throw new UsageError('HOSTS_TOOLS', `${names} missing: run  sudo apt-get install -y ${packages}`)
}

/** The network namespace of a process; undefined where it is gone. */
function networkOf(pid: number | undefined): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`)
  } catch {
    return undefined
  }
}

/** Pid and start time: a process, and no later one with its number. */
function ownName(pid: number): string {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  return `${pid}-${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]}`
}

async function removeLeftovers(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const [, owner, pid] = new RegExp(`^${FOLDER}((\\d+)-\\d+)-`).exec(name) ?? []
    if (owner === undefined || lives(Number(pid), owner)) continue
    await rm(join(tmpdir(), name), { recursive: true, force: true }).catch((error: unknown) => {
      throw new DiapauseError('HOSTS_LEFTOVER', `cannot remove ${join(tmpdir(), name)}: ${messageOf(error)}`, {
        cause: error
      })
    })
  }
}

function lives(pid: number, name: string): boolean {
  try {
    return ownName(pid) === name
  } catch {
    return false
  }
}
