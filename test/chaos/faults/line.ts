/**
 * Bad lines: frames between a host and the switch are lost, late, late by chance, or come twice. A program (`line.c`) takes
 * the place of the host's port at the switch, under its name, so that all else that is done to the port goes on.
 *
 * One program for a host does what all faults of its line ask for together. It dies with this process, and the host is cut
 * off then, as all hosts are.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once as event } from 'node:events'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { DiapauseError, messageOf } from '../../../node/errors.ts'
import type { Host, Hosts } from '../../hosts/hosts.ts'
import { all, type Fault, type Heal, once } from '../fault.ts'
import { compile, needsPrograms, runWords } from './tools.ts'

/** Of frames of each way. */
export interface LineCondition {
  readonly delayMs?: number
  /** The delay is this much more or less, at random: with it, frames overtake each other. */
  readonly jitterMs?: number
  /** Of a million frames. */
  readonly lossPpm?: number
  readonly duplicatePpm?: number
}

/** What a line did, up to its heal. */
export interface LineCounts {
  readonly passed: number
  readonly lost: number
  readonly twice: number
}

/**
 * $1, a device, is $2 from now on. Linux before 6.2 refuses that while a device is up, and one that goes down costs more than
 * the fault: hosts forget all MAC addresses, and the switch forwards nothing to it for up to a second. So it goes to another
 * namespace and back: a device that moves is closed, renamed and opened in one request, and nobody sees that it was down.
 * Where it cannot come back as $2 it comes back as $1: it would end with that namespace, and the host's end with it.
 */
const RENAME = `
exec 3< /proc/self/ns/net
exec unshare --net sh -ec '
  nsenter --net=/proc/self/fd/3 ip link set "$1" netns $$ name "$2" up && ip link set "$2" netns /proc/self/fd/3 up && exit
  ip link set "$2" netns /proc/self/fd/3 name "$1" up
  exit 1
' sh "$1" "$2"`

interface Line {
  readonly conditions: Set<LineCondition>
  readonly process: ChildProcessByStdio<Writable, Readable, null>
  readonly closed: Promise<unknown>
  /** All that it says. */
  said: string
}

class Lines {
  readonly #hosts: Hosts
  readonly #lines = new Map<Host, Line>()
  readonly #program: string
  /** Of hosts whose line is good again: the last that the bad one did. */
  readonly counts = new Map<Host, LineCounts>()
  /** What is under way. */
  #before: Promise<unknown>

  constructor(hosts: Hosts) {
    this.#hosts = hosts
    this.#program = join(hosts.dir, 'line')
    this.#before = compile(join(import.meta.dirname, 'line.c'), this.#program)
  }

  /** One after the other: two that begin at once would both take the port's place. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#before.then(work)
    this.#before = result.catch(() => {})
    return result
  }

  worsen(host: Host, condition: LineCondition): Promise<Heal> {
    return this.#alone(async () => {
      const line = this.#lines.get(host) ?? (await this.#open(host))
      line.conditions.add(condition)
      tell(line)
      return once(() => this.#alone(() => this.#better(host, condition)))
    })
  }

  async #better(host: Host, condition: LineCondition): Promise<void> {
    const line = this.#lines.get(host)
    if (line === undefined) return
    line.conditions.delete(condition)
    if (line.conditions.size > 0) tell(line)
    else await this.#close(host, line)
  }

  async #open(host: Host): Promise<Line> {
    const line = this.#start(host)
    try {
      await Promise.race([event(line.process.stdout, 'data'), line.closed])
      if (line.said !== 'ready\n') throw new DiapauseError('CHAOS_LINE', `the line of ${host.name} could not be made`)
      await this.#plugBetween(host)
    } catch (error) {
      await this.#restore(host, line).catch((reason: unknown) => {
        const message = `the line of ${host.name} could not be made, and not all of it is undone: ${messageOf(reason)}`
        throw new DiapauseError('CHAOS_LINE', message, { cause: error })
      })
      throw error
    }
    this.#lines.set(host, line)
    return line
  }

  #start({ port }: Host): Line {
    const where = [...this.#hosts.onSwitch, 'setpriv', '--pdeathsig', 'KILL']
    const [command, ...args] = [...where, this.#program, wireOf(port), spareOf(port)]
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    const line: Line = { conditions: new Set(), process: child, closed: event(child, 'close'), said: '' }
    child.stdin.on('error', () => {}) // it ended; the heal says so
    child.stdout.setEncoding('utf8').on('data', (text: string) => (line.said += text))
    return line
  }

  async #plugBetween(host: Host): Promise<void> {
    const { port } = host
    await this.#plain(host, true)
    await this.#rename(port, wireOf(port))
    const spare = [`link set ${spareOf(port)} addrgenmode none`, `link set ${spareOf(port)} name ${port}`]
    await this.#switch([...spare, `link set ${port} up`, ...this.#plugIn(host)])
  }

  async #close(host: Host, line: Line): Promise<void> {
    this.#lines.delete(host)
    await this.#restore(host, line)
    const [, passed, lost, twice] = /^passed (\d+) lost (\d+) twice (\d+)$/m.exec(line.said) ?? []
    if (passed === undefined) throw new DiapauseError('CHAOS_LINE', `the line of ${host.name} ended unasked`)
    this.counts.set(host, { passed: Number(passed), lost: Number(lost), twice: Number(twice) })
  }

  /** As before the line, also where that was never whole, or ended by itself and took what had the port's name with it. */
  async #restore(host: Host, line: Line): Promise<void> {
    const { port } = host
    line.process.stdin.end()
    await line.closed // and what had the port's name is gone
    await all([
      () => this.#plain(host, false),
      () => this.#switch(this.#plugIn(host)),
      async () => {
        if (!(await this.#isThere(port))) await this.#rename(wireOf(port), port)
      }
    ])()
  }

  async #rename(from: string, to: string): Promise<void> {
    await runWords([...this.#hosts.onSwitch, 'sh', '-ec', RENAME, 'sh', from, to])
  }

  #switch(lines: readonly string[]): Promise<void> {
    return this.#hosts.ip(this.#hosts.onSwitch, lines)
  }

  /** Into the bridge; a host that is cut off stays so. */
  #plugIn(host: Host): string[] {
    const isCutOff = !this.#hosts.reaches(host, host)
    return isCutOff ? [] : [`link set ${host.port} master br0`]
  }

  async #isThere(port: string): Promise<boolean> {
    const devices = await runWords([...this.#hosts.onSwitch, 'ip', '-oneline', 'link', 'show'])
    return new RegExp(`: ${port}[@:]`).test(devices)
  }

  async #plain(host: Host, on: boolean): Promise<void> {
    await runWords([...this.#hosts.on(host), this.#program, 'plain', 'eth0', on ? '1' : '0'])
  }
}

/** Of a host's end at the switch while another has its name. */
const wireOf = (port: string): string => `${port}-wire`
/** Of what takes its place, before it does. */
const spareOf = (port: string): string => `${port}-spare`

/** Delays add up, and the chances of what does not happen multiply; for small ones that is their sum. */
function tell({ conditions, process }: Line): void {
  const sum = (of: (each: LineCondition) => number | undefined): number =>
    [...conditions].reduce((total, each) => total + (of(each) ?? 0), 0)
  const jitterUs = Math.round(sum(each => each.jitterMs) * 1_000)
  const delayUs = Math.max(jitterUs, Math.round(sum(each => each.delayMs) * 1_000))
  const [loss, twice] = [sum(each => each.lossPpm), sum(each => each.duplicatePpm)]
  process.stdin.write(`${delayUs} ${jitterUs} ${Math.min(loss, 1e6)} ${Math.min(twice, 1e6)}\n`)
}

const linesOf = new WeakMap<Hosts, Lines>()

function of(hosts: Hosts): Lines {
  const found = linesOf.get(hosts) ?? new Lines(hosts)
  linesOf.set(hosts, found)
  return found
}

/** From now to the heal, whatever else is wrong with the line. */
export const worsenLine = (hosts: Hosts, host: Host, condition: LineCondition): Promise<Heal> =>
  of(hosts).worsen(host, condition)

/** Of the host's last bad line, which is good again; undefined if it never had one. */
export const lineCounts = (hosts: Hosts, host: Host): LineCounts | undefined => of(hosts).counts.get(host)

function bad(name: string, about: string, draw: (random: () => number) => LineCondition): Fault {
  return {
    name,
    about,
    lasts: { leastMs: 2_000, mostMs: 30_000 },
    reach: 'one',
    links: true,
    needs: needsPrograms('gcc', 'ip'),
    begin: ({ hosts, host, random }) => worsenLine(hosts, host, draw(random))
  }
}

const between = (least: number, most: number, at: number): number => Math.round(least + (most - least) * at)

// From what a long or crowded line does to what only a broken one does: guesses.
const PPM = { least: 10_000, most: 200_000 }

export const loss = bad('loss', '1 to 20 % of its frames are lost, each way', random => ({
  lossPpm: between(PPM.least, PPM.most, random())
}))

export const delay = bad('delay', 'its frames come 5 to 150 ms late, each way', random => ({
  delayMs: between(5, 150, random())
}))

export const jitter = bad('jitter', 'its frames come up to 100 ms late, each way, and overtake each other', random => {
  const ms = between(5, 50, random())
  return { delayMs: ms, jitterMs: ms }
})

export const duplicates = bad('duplicates', '1 to 20 % of its frames come twice, each way', random => ({
  duplicatePpm: between(PPM.least, PPM.most, random())
}))

export const badLine = bad('bad-line', 'its frames are lost, late, overtake each other and come twice', random => ({
  delayMs: between(5, 60, random()),
  jitterMs: 5,
  lossPpm: between(5_000, 50_000, random()),
  duplicatePpm: between(5_000, 50_000, random())
}))
