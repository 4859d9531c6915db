/** Bad lines between hosts and their switch: what becomes of frames and connections, and that all is as before in the end. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { badLine, delay, duplicates, jitter, lineCounts, loss, worsenLine } from '../chaos/faults/line.ts'
import { killAll, naming, waitUntil } from '../demo/processes.ts'
import { type Host, Hosts } from '../hosts/hosts.ts'
import { withDirectory } from '../unit/store-support.ts'
import { noDisk, Patient } from './chaos-support.ts'

const PORT = 7400
/** Of a datagram: far above that of two network namespaces, also when the machine is busy. */
const WAIT_MS = 3_000

/** A socket has room for so many, also where nobody reads it for a while. */
const FEW = 200

const echo = `
  const socket = require('dgram').createSocket('udp4')
  socket.on('message', (message, from) => socket.send(message, from.port, from.address))
  socket.bind(${PORT}, () => console.log('up'))`

/** Says which of so many datagrams came back, in that order, and the shortest time that one took. */
const asker = (to: Host, count: number) => `
  const socket = require('dgram').createSocket('udp4')
  const [sent, got] = [[], []]
  let leastMs = Infinity
  socket.on('message', message => {
    const number = Number(message)
    got.push(number)
    leastMs = Math.min(leastMs, performance.now() - sent[number])
    if (new Set(got).size === ${count}) setTimeout(tell, 300)
  })
  const tell = () => { console.log(JSON.stringify({ got, leastMs })); process.exit() }
  const next = () => {
    for (let i = 0; i < 5 && sent.length < ${count}; i++) {
      sent.push(performance.now())
      socket.send(String(sent.length - 1), ${PORT}, '${to.address}')
    }
    if (sent.length < ${count}) setTimeout(next, 5)
    else setTimeout(tell, ${WAIT_MS})
  }
  next()`

/** Says the hash of what it has got, once the other end has closed. */
const sink = `
  const hash = require('crypto').createHash('sha256')
  require('net').createServer(s => s.on('data', part => hash.update(part)).on('end', () => {
    console.log(hash.digest('hex'))
    process.exit()
  })).listen(${PORT + 1}, () => console.log('up'))`
const source = (to: Host, bytes: number) => `
  const content = require('crypto').randomBytes(${bytes})
  console.log(require('crypto').createHash('sha256').update(content).digest('hex'))
  require('net').connect(${PORT + 1}, '${to.address}').end(content)`

interface Answers {
  readonly got: readonly number[]
  readonly leastMs: number
}

let hosts: Hosts
let one: Host
let two: Host

beforeEach(async () => {
  hosts = await Hosts.make(2)
  ;[one, two] = hosts.all as [Host, Host]
})
afterEach(async () => {
  const left = await hosts.remove()
  if (left.length > 0) throw new Error(left.join('\n'))
})

/** Its lines, as they come. */
async function* linesOf(host: Host, script: string): AsyncGenerator<string> {
  const [command, ...args] = [...hosts.on(host), process.execPath, '-e', script]
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  yield* createInterface({ input: child.stdout })
}

async function start(host: Host, script: string): Promise<AsyncGenerator<string>> {
  const lines = linesOf(host, script)
  await lines.next() // "up"
  return lines
}

async function ask(count: number): Promise<Answers> {
  const line = await linesOf(one, asker(two, count)).next()
  return JSON.parse(String(line.value)) as Answers
}

/** Two answers one, and each knows the other's MAC address: else the first datagrams wait for that, and most are dropped. */
async function echoing(): Promise<void> {
  await start(two, echo)
  await answeredAgain()
}

/**
 * A host that nobody answered for a while asks for the other's MAC address anew, once a second: what is lost until
 * it has it says nothing about the line.
 */
async function answeredAgain(tries = 10): Promise<void> {
  if ((await ask(1)).got.length > 0) return
  if (tries === 1) throw new Error(`${two.name} answers ${one.name} no more`)
  await answeredAgain(tries - 1)
}

/** What the kernel says of devices there while that is done: a line for each change. */
async function linkChanges(where: readonly string[], work: () => Promise<void>): Promise<string[]> {
  const [command, ...args] = [...where, 'ip', '-oneline', 'monitor', 'link']
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text))
  // Changes come in order: it listens when it knows of one, and has all when it knows of the last.
  const until = async (mtu: number): Promise<void> => {
    await hosts.ip(where, [`link set lo mtu ${mtu}`])
    await sleep(10)
    if (!said.includes(`mtu ${mtu} `)) await until(mtu ^ 1)
  }
  await until(2_000)
  await work()
  await until(3_000)
  child.kill()
  return said.trim().split('\n')
}

interface Renamed {
  readonly from: string
  readonly to: string
  readonly up: boolean
}

/** Devices that have another name than the last time, and whether they were up. */
function renamed(changes: readonly string[]): Renamed[] {
  const names = new Map<string, string>()
  return changes.flatMap(line => {
    const [, gone, index = '', to = '', flags = ''] = /^(Deleted )?(\d+): ([^@:]+)\S* <(\S*)>/.exec(line) ?? []
    const from = names.get(index)
    names.delete(index)
    if (gone === undefined) names.set(index, to)
    return gone === undefined && from !== undefined && from !== to
      ? [{ from, to, up: flags.split(',').includes('UP') }]
      : []
  })
}

/** Kills its program; then the port that this had is gone, too. */
async function killLine(): Promise<void> {
  const [line, ...others] = naming(join(hosts.dir, 'line')).map(({ pid }) => pid)
  if (line === undefined || others.length > 0) throw new Error('one line is to be bad')
  killAll([line])
  // A process that ends has no arguments any more while it still has its devices.
  expect(await waitUntil(() => !existsSync(`/proc/${line}`), WAIT_MS)).toBe(true)
}

const numbers = (count: number): number[] => Array.from({ length: count }, (_, i) => i)
const sorted = (got: readonly number[]): number[] => [...got].sort((a, b) => a - b)

/** Host one, to which a fault is done that draws the middle of all it may. */
const patient = (dir: string): Promise<Patient> =>
  Patient.make({ hosts, host: one, dir, disk: noDisk(dir), random: () => 0.5 })

it('a line that loses frames loses about as many as it says, each way, and none when it is good again', async () => {
  await echoing()
  await withDirectory(async dir => {
    const heal = await loss.begin(await patient(dir)) // 10.5 %
    const { got } = await ask(2_000)
    await heal()
    expect(got.length).toBeLessThan(2_000)
    expect(new Set(got).size).toBe(got.length)
    // Whoever asks and answers may lose some, too, where the machine is busy: the line knows what it lost.
    const { passed, lost } = lineCounts(hosts, one) ?? { passed: 0, lost: 0 }
    expect(lost / (passed + lost)).toBeCloseTo(0.105, 1)
    expect(sorted((await ask(FEW)).got)).toEqual(numbers(FEW))
  })
})

it('a line with a delay is never faster, and keeps the order; with jitter it does not', async () => {
  await echoing()
  await withDirectory(async dir => {
    const target = await patient(dir)
    const healDelay = await delay.begin(target) // 78 ms
    const late = await ask(FEW)
    expect(late.got).toEqual(numbers(FEW))
    expect(late.leastMs).toBeGreaterThan(2 * 77)
    await healDelay()
    const healJitter = await jitter.begin(target)
    const mixed = await ask(FEW)
    expect(mixed.got).not.toEqual(numbers(FEW))
    expect(sorted(mixed.got)).toEqual(numbers(FEW))
    await healJitter()
    const after = await ask(FEW)
    expect(after.got).toEqual(numbers(FEW))
    expect(after.leastMs).toBeLessThan(late.leastMs)
  })
})

it('a line that doubles frames doubles some, each way', async () => {
  await echoing()
  await withDirectory(async dir => {
    const heal = await duplicates.begin(await patient(dir))
    const { got } = await ask(FEW)
    await heal()
    expect(new Set(got).size).toBe(FEW)
    expect(got.length).toBeGreaterThan(FEW)
    expect(lineCounts(hosts, one)?.twice).toBeGreaterThan(0)
  })
})

it('what a connection carries over the worst line comes whole', async () => {
  const received = await start(two, sink)
  await withDirectory(async dir => {
    const heal = await badLine.begin(await patient(dir))
    const sent = await linesOf(one, source(two, 1 << 20)).next()
    expect(String((await received.next()).value)).toBe(sent.value)
    await heal()
    // Each frame by itself, not the large ones that a card would cut up: those are lost by the dozen.
    expect(lineCounts(hosts, one)?.passed).toBeGreaterThan((1 << 20) / 1_500)
  })
})

it('faults of one line add up, a host that is cut off stays so, and each heals by itself', async () => {
  await echoing()
  const healLoss = await worsenLine(hosts, one, { lossPpm: 1e6 })
  const healDelay = await worsenLine(hosts, one, { delayMs: 20 })
  expect((await ask(20)).got).toEqual([])
  await healLoss()
  await healLoss()
  await answeredAgain()
  const late = await ask(20)
  expect(late.got).toEqual(numbers(20))
  expect(late.leastMs).toBeGreaterThan(2 * 19)
  const reconnect = await hosts.cutOff(one)
  expect((await ask(20)).got).toEqual([])
  await healDelay()
  expect((await ask(20)).got).toEqual([])
  const healLate = await worsenLine(hosts, one, { delayMs: 20 })
  await reconnect()
  await answeredAgain()
  expect((await ask(20)).leastMs).toBeGreaterThan(2 * 19)
  await healLate()
  expect((await ask(20)).got).toEqual(numbers(20))
})

it('devices change their names while they are down, as Linux before 6.2 asks for, and a host does not see its link go down', async () => {
  let atHost: string[] = []
  const atSwitch = await linkChanges(hosts.onSwitch, async () => {
    atHost = await linkChanges(hosts.on(two), async () => {
      const heal = await worsenLine(hosts, two, { delayMs: 5 })
      await heal()
    })
  })
  const all = renamed(atSwitch)
  expect(all).toContainEqual({ from: 'p2-spare', to: 'p2', up: false })
  expect(all.filter(({ up }) => up)).toEqual([])
  expect(atHost.filter(line => / eth0@/.test(line) && !/[<,]LOWER_UP[,>].* state UP /.test(line))).toEqual([])
})

it('a line that ended by itself is told by its heal, which brings the host back all the same, but not one that is cut off', async () => {
  await echoing()
  const heal = await worsenLine(hosts, one, { delayMs: 5 })
  await killLine()
  const unasked = expect.objectContaining({ code: 'CHAOS_LINE', message: expect.stringMatching(/ended unasked/) })
  await expect(heal()).rejects.toEqual(unasked)
  await answeredAgain()
  const healCut = await worsenLine(hosts, one, { delayMs: 5 })
  const reconnect = await hosts.cutOff(one)
  await killLine()
  await expect(healCut()).rejects.toEqual(unasked)
  expect((await ask(20)).got).toEqual([])
  await reconnect()
  await answeredAgain()
})

it('a line that cannot be made leaves the host as it was, and the next one is made', async () => {
  await echoing()
  await hosts.ip(hosts.onSwitch, ['link add p1-wire type bridge']) // the name that the port is to have meanwhile
  await expect(worsenLine(hosts, one, { delayMs: 20 })).rejects.toThrow('p1-wire')
  expect(naming(join(hosts.dir, 'line'))).toEqual([])
  await answeredAgain()
  await hosts.ip(hosts.onSwitch, ['link del p1-wire'])
  const heal = await worsenLine(hosts, one, { delayMs: 20 })
  await answeredAgain()
  expect((await ask(20)).leastMs).toBeGreaterThan(2 * 19)
  await heal()
  await answeredAgain()
})

it('a line ends with its host, whatever it was doing', async () => {
  await worsenLine(hosts, one, { delayMs: 5 })
  const running = (): number => hosts.running(one).length
  expect(running()).toBe(0) // it stands at the switch
  const heal = await worsenLine(hosts, two, { delayMs: 5 })
  await hosts.remove()
  await expect(heal()).rejects.toThrow()
})

it('a process that starts while the line is bad goes on when it is good', async () => {
  const heal = await worsenLine(hosts, one, { delayMs: 5 })
  const [command, ...args] = [...hosts.on(two), process.execPath, '-e', echo]
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  expect((await ask(20)).got).toEqual(numbers(20))
  await heal()
  expect((await ask(20)).got).toEqual(numbers(20))
})
