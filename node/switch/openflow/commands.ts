/** The host's programs that make devices and ports of a bridge: `ip` (iproute2) and `ovs-vsctl` (Open vSwitch). */
import { execFile } from 'node:child_process'
import { DiapauseError, UsageError } from '../../errors.ts'

/** For `ovs-vsctl` to see what it asked for done by the daemon. As for OpenFlow's answers. */
const DONE_S = 5
/** Both give up by themselves, or take milliseconds. */
const LIMIT_MS = 2 * DONE_S * 1_000

/** Debian's. */
const packages: Readonly<Record<string, string>> = { ip: 'iproute2', 'ovs-vsctl': 'openvswitch-switch' }

/** A command for a person to type. */
export const asRoot = (command: string): string =>
  process.getuid?.() === 0 ? `run  ${command}` : `as root, run  ${command}`

/** A remedy is told of the words that `said` has put in brackets. */
type Remedy = string | ((word: string) => string)

/** What they say where a person has something to do. */
const remedies: readonly { readonly said: RegExp; readonly code: string; readonly remedy: Remedy }[] = [
  {
    said: /Operation not permitted|Permission denied/,
    code: 'OPENFLOW_PRIVILEGE',
    remedy: 'run the peer as root, or with CAP_NET_ADMIN and as a user who may use Open vSwitch'
  },
  {
    said: /open: No such file or directory|\/dev\/net\/tun/,
    code: 'OPENFLOW_TUN',
    remedy: `this host has no /dev/net/tun: ${asRoot('modprobe tun')}  , and give it to the container if the peer is in one`
  },
  {
    said: /database connection failed/,
    code: 'OPENFLOW_DATABASE',
    remedy: 'start Open vSwitch, or say where its database is (switch.openFlow.database)'
  },
  {
    said: /no bridge named ([^\s,;]+)/,
    code: 'OPENFLOW_BRIDGE',
    remedy: bridge =>
      `${asRoot(`ovs-vsctl add-br ${bridge} -- set bridge ${bridge} fail_mode=secure protocols=OpenFlow13 datapath_type=netdev`)}  , or set switch.openFlow.bridge to one that is there`
  },
  { said: /SIGALRM/, code: 'OPENFLOW_DOWN', remedy: 'is ovs-vswitchd running?' }
]

/** Runs lines of `ip`, all or up to the first that fails. Errors as `run`. */
export async function ip(lines: readonly string[]): Promise<void> {
  await run('ip', ['-batch', '-'], `${lines.join('\n')}\n`)
}

/** The kernel's number of each TAP device of this network namespace. Errors as `run`. */
export async function tapDevices(): Promise<Map<string, number>> {
  const listed = await run('ip', ['-o', 'link', 'show', 'type', 'tun'])
  return new Map([...listed.matchAll(/^(\d+): ([^:@]+)/gm)].map(([, index, name]) => [name as string, Number(index)]))
}

/**
 * `words`: commands of `ovs-vsctl`. `database` as its --db says. With `wait` it is done when this resolves. Errors as `run`.
 */
export function vsctl(database: string, words: readonly string[], wait: 'wait' | 'no wait'): Promise<string> {
  const options = [`--db=${database}`, `--timeout=${DONE_S}`, ...(wait === 'wait' ? [] : ['--no-wait'])]
  return run('ovs-vsctl', [...options, ...words])
}

/**
 * What the program prints. UsageErrors: OPENFLOW_TOOL where it is missing, and what `remedies` lists; else OPENFLOW_COMMAND.
 */
export async function run(program: string, args: readonly string[], input = ''): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const options = { timeout: LIMIT_MS, killSignal: 'SIGKILL' } as const
  const child = execFile(program, args, options, (error, stdout, stderr) => {
    if (error === null) resolve(stdout)
    else reject(failed(program, [...args, ...input.split('\n')], error, stderr))
  })
  child.stdin?.on('error', () => {}) // it has ended already, and says why
  child.stdin?.end(input)
  return await promise
}

type ExecError = Error & { readonly code?: unknown; readonly signal?: unknown; readonly killed?: boolean }

function failed(program: string, words: readonly string[], error: ExecError, stderr: string): DiapauseError {
  if (error.code === 'ENOENT') {
    const install = asRoot(`apt-get install -y ${packages[program] ?? program}`)
    return new UsageError('OPENFLOW_TOOL', `${program} is not installed here: ${install}`, { cause: error })
  }
  const end = error.killed === true ? `no end in ${LIMIT_MS} ms` : `ended by ${String(error.signal ?? error.code)}`
  const said = `${stderr.trim()} (${end})`
  const command = [program, ...words].join(' ').trim()
  for (const { said: pattern, code, remedy } of remedies) {
    const match = pattern.exec(said)
    if (match === null) continue
    const mend = typeof remedy === 'string' ? remedy : remedy(match[1] as string)
    return new UsageError(code, `${said}: ${mend}. It was:  ${command}`, { cause: error })
  }
  return new DiapauseError('OPENFLOW_COMMAND', `${command}: ${said}`, { cause: error })
}
