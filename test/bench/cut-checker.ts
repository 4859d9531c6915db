/**
 * Were the cuts consistent? From what passed every VM's socket (`PortLog`) and the frames in every committed image. Pure.
 *
 * The definition is Mattern's (1993, section 3) and Lai-Yang's (1987), checked frame by frame and from outside: the checker
 * colours frames by itself, with the colour that their sender had when they left its socket, and finds each again at its
 * receiver by its bytes, since a channel (sender, receiver, generation) is in order. Then
 *
 *   - *early*: a frame that was given to a VM of an older colour than its own. None may be.
 *   - *in flight* at epoch e: sent by a VM before its cut to e, and not given to the receiver before the receiver's. Each
 *     must be in the receiver's image, in order. Those that a live VM never got, because it died, are among them.
 *   - *untaken* at epoch e: given to the VM before its cut, and not in its RAM yet at the cut, by QEMU's count. It must be in
 *     the image, too.
 *   - whatever else an image holds must have been given to the VM before its cut (it had taken it: a duplicate).
 *     A frame that was sent after its sender's cut (*future*), or by nobody (*strange*), may not be there.
 *   - a VM that is restored gets its image's frames first (*replayed*), and what comes then must have been sent (*unknown*).
 *
 * Frames that were lost are no fault of a cut: later ones of their channel have come. But whoever loses frames (a switch that
 * drops early ones, say) passes all of the above, so they are counted: *lost in deaths*, if they were under way when a peer
 * died and its generation with it, *lost* otherwise. What was still under way when a generation ended is neither: no later
 * one has come.
 *
 * A run in which no frame was early or in flight shows nothing. *waited*: of a newer colour than their receiver had when they
 * left, and given to it later. Some of them came when it had been cut, most had to wait for it: a cut is milliseconds away,
 * and a peer a fraction of one.
 *
 * How many were untaken is a lower bound. QEMU counts what it put into RAM and not what it lost, and it loses frames at a stop
 * where the guest's ring is full (as a network card does): from then on as many more seem untaken for ever. So what was so at
 * the cut before is not counted again.
 */
import { EVERYBODY, KINDS, type PortLog } from './cut-checker-log.ts'

export interface ImageFrame {
  /** Number of the VM that sent it. */
  readonly from: number
  readonly crc: number
}

/** The frames in one VM's image of one committed epoch. */
export interface ImageFrames {
  readonly vm: string
  readonly epoch: number
  readonly frames: readonly ImageFrame[]
}

export interface CutVerdict {
  /** Given to VMs. */
  readonly frames: number
  /** In images, found to be in flight. */
  readonly inFlight: number
  /** In images though they had been given to the VM just before its cut. */
  readonly duplicates: number
  readonly replayed: number
  /** In images, given to the VM before its cut and not taken by then. */
  readonly untaken: number
  readonly waited: number
  readonly lost: number
  readonly lostInDeaths: number
  readonly early: number
  readonly missing: number
  readonly future: number
  readonly strange: number
  readonly unknown: number
  /** Images of VMs whose cut nobody saw. */
  readonly unseen: number
  /** Images of VMs of which QEMU did not say what they had taken: they count as having taken all. */
  readonly unread: number
  /** The first of each kind of fault, in words. */
  readonly examples: readonly string[]
}

/** A frame is looked for among so many that were sent after the last one found. More are not lost at once: a guess. */
const LOOK_AHEAD = 50_000
/** Longer than a frame is under way, or waits for its receiver's cut. A guess. */
const UNDER_WAY_MS = 1_000
/** QEMU's count ends here and begins anew. */
const TAKEN_MODULO = 65_536

const bankNumber = (vm: string): number => Number(vm.replace(/^vm/, ''))

/** Frames from one VM to another in one generation, in order. */
class Channel {
  readonly sentCrc: number[] = []
  /** Their sender's when they left, never falling. */
  readonly sentColour: number[] = []
  readonly sentMs: number[] = []
  readonly gotCrc: number[] = []
  /** Their receiver's when they came, never falling. */
  readonly gotColour: number[] = []
  /** Their places in all that came to the receiver, from 0. */
  readonly gotPlace: number[] = []
  /** Index of what came among what was sent; -1: replayed from an image, or unknown. */
  readonly match: number[] = []
  readonly wasGot: boolean[] = []
}

/** One VM that stood still for a cut. */
interface Still {
  /** 0 until its colour turns. */
  epoch: number
  /** Frames that had been given to it. */
  given: number
  /** By QEMU's count; undefined: not known. */
  readonly taken: number | undefined
}

/** What was read of a port. */
interface Passed {
  readonly stills: Still[]
  readonly turns: { readonly colour: number; readonly atMs: number }[]
}

class Checker {
  readonly #sums: Record<Exclude<keyof CutVerdict, 'examples'>, number> = {
    frames: 0,
    inFlight: 0,
    duplicates: 0,
    replayed: 0,
    untaken: 0,
    waited: 0,
    lost: 0,
    lostInDeaths: 0,
    early: 0,
    missing: 0,
    future: 0,
    strange: 0,
    unknown: 0,
    unseen: 0,
    unread: 0
  }
  readonly #examples = new Map<string, string>()
  readonly #channels = new Map<string, Channel>()
  readonly #passed = new Map<PortLog, Passed>()
  readonly #ports: readonly PortLog[]
  readonly #images: ReadonlyMap<string, ImageFrames>

  constructor(ports: readonly PortLog[], images: readonly ImageFrames[]) {
    this.#ports = ports
    this.#images = new Map(images.map(image => [`${image.vm} ${image.epoch}`, image]))
  }

  run(): CutVerdict {
    for (const port of this.#ports) this.#read(port)
    for (const port of this.#ports) for (const [from, channel] of this.#into(port)) this.#pair(port, from, channel)
    for (const image of this.#images.values()) this.#checkImage(image)
    return { ...this.#sums, examples: [...this.#examples.values()] }
  }

  #channel(generation: number, from: number, to: number): Channel {
    const key = `${generation} ${from} ${to}`
    let channel = this.#channels.get(key)
    if (channel === undefined) {
      channel = new Channel()
      this.#channels.set(key, channel)
    }
    return channel
  }

  /** Channels that end at the port, by number of their sender. */
  #into({ vm, generation }: PortLog): [number, Channel][] {
    const others = new Set(this.#ports.map(port => bankNumber(port.vm)).filter(other => other !== bankNumber(vm)))
    return [...others].map(from => [from, this.#channel(generation, from, bankNumber(vm))])
  }

  #read(port: PortLog): void {
    const self = bankNumber(port.vm)
    const all = [...new Set(this.#ports.map(({ vm }) => bankNumber(vm)))].filter(other => other !== self)
    const { stills, turns }: Passed = { stills: [], turns: [] }
    this.#passed.set(port, { stills, turns })
    let { colour } = port
    let given = 0
    for (const [i, kind] of port.kinds.entries()) {
      const station = port.stations[i] as number
      const value = port.values[i] as number
      const atMs = port.timesMs[i] as number
      if (kind === KINDS.taken) stills.push({ epoch: 0, given, taken: value })
      else if (kind === KINDS.turn) {
        colour = value
        turns.push({ colour, atMs })
        if (!port.cuts.has(colour)) continue
        if (stills.at(-1)?.epoch !== 0) stills.push({ epoch: 0, given, taken: undefined })
        Object.assign(stills.at(-1) as Still, { epoch: colour, given })
      } else if (kind === KINDS.out) {
        for (const to of station === EVERYBODY ? all : [station]) {
          const channel = this.#channel(port.generation, self, to)
          channel.sentCrc.push(value)
          channel.sentColour.push(colour)
          channel.sentMs.push(atMs)
        }
      } else {
        const channel = this.#channel(port.generation, station, self)
        channel.gotCrc.push(value)
        channel.gotColour.push(colour)
        channel.gotPlace.push(given++)
        this.#sums.frames++
      }
    }
  }

  /** When the first peer with one of its VMs was killed, before the next generation began. Infinity: none was. */
  #deathMs(generation: number): number {
    const later = this.#ports.filter(port => port.generation > generation).map(({ attachedMs }) => attachedMs)
    const endMs = Math.min(...later)
    const own = this.#ports.filter(port => port.generation === generation)
    return Math.min(...own.map(({ killedMs = Infinity }) => killedMs).filter(killedMs => killedMs < endMs))
  }

  /** Finds what came among what was sent. */
  #pair(port: PortLog, from: number, channel: Channel): void {
    const { sentCrc, sentColour, sentMs, gotCrc, gotColour, match, wasGot } = channel
    const turns = this.#passed.get(port)?.turns ?? []
    const excusedMs = this.#deathMs(port.generation) - UNDER_WAY_MS
    const restored = this.#images.get(`${port.vm} ${port.colour}`)?.frames ?? []
    const replay = restored.filter(frame => frame.from === from).map(({ crc }) => crc)
    let at = 0
    while (at < replay.length && at < gotCrc.length && replay[at] === gotCrc[at]) match[at++] = -1
    this.#sums.replayed += at
    let next = 0
    for (; at < gotCrc.length; at++) {
      const end = Math.min(sentCrc.length, next + LOOK_AHEAD)
      let found = next
      while (found < end && sentCrc[found] !== gotCrc[at]) found++
      match[at] = found < end ? found : -1
      const where = `vm${from} to ${port.vm}, frame ${at} of generation ${port.generation}`
      if (found === end) {
        this.#fault('unknown', `unknown: ${where} came and was not sent`)
        continue
      }
      for (let lost = next; lost < found; lost++) {
        const kind = (sentMs[lost] as number) < excusedMs ? 'lost' : 'lostInDeaths'
        this.#fault(kind, `${kind}: a frame of colour ${sentColour[lost]} before ${where}`)
      }
      wasGot[found] = true
      if ((sentColour[found] as number) <= (gotColour[at] as number)) {
        const turned = turns.find(({ colour }) => colour >= (sentColour[found] as number))
        const newer = (sentColour[found] as number) > port.colour
        if (newer && turned !== undefined && (sentMs[found] as number) < turned.atMs) this.#sums.waited++
      } else
        this.#fault('early', `early: ${where} of colour ${sentColour[found]} was given to a VM of ${gotColour[at]}`)
      next = found + 1
    }
  }

  #checkImage(image: ImageFrames): void {
    const port = this.#ports.find(({ vm, cuts }) => vm === image.vm && cuts.has(image.epoch))
    if (port === undefined) return this.#fault('unseen', `unseen: the cut of ${image.vm} to epoch ${image.epoch}`)
    const taken = this.#takenBy(port, image.epoch)
    if (taken === undefined) this.#sums.unread++
    for (const [from, channel] of this.#into(port)) {
      const inImage = image.frames.filter(frame => frame.from === from).map(({ crc }) => crc)
      this.#checkChannel(channel, {
        inImage,
        epoch: image.epoch,
        taken,
        where: `vm${from} to ${image.vm}, epoch ${image.epoch}`
      })
    }
    const known = new Set(this.#into(port).map(([from]) => from))
    for (const { from } of image.frames)
      if (!known.has(from)) this.#fault('strange', `strange: ${image.vm}, epoch ${image.epoch}: a frame of vm${from}`)
  }

  /** Of all frames given to the VM before its cut, so many are in its RAM, or lost for good; undefined: nobody knows. */
  #takenBy(port: PortLog, epoch: number): number | undefined {
    const base = port.colour === 0 ? 0 : this.#takenAt(port.vm, port.colour)
    let before = 0
    for (const still of this.#passed.get(port)?.stills ?? []) {
      if (still.taken === undefined || base === undefined) {
        if (still.epoch === epoch) return undefined
        continue
      }
      const left = (still.given - still.taken + base + TAKEN_MODULO) % TAKEN_MODULO
      // More than it was given: a frame took several buffers, so that they do not tell how many frames they are.
      if (left > TAKEN_MODULO / 2) return undefined
      if (still.epoch === epoch) return still.given - Math.max(0, left - before)
      before = left
    }
    return undefined
  }

  /** By QEMU's count, when the VM was cut to `epoch`, wherever that was. */
  #takenAt(vm: string, epoch: number): number | undefined {
    const stills = this.#ports.flatMap(port => (port.vm === vm ? (this.#passed.get(port)?.stills ?? []) : []))
    return stills.find(still => still.epoch === epoch)?.taken
  }

  #checkChannel(
    channel: Channel,
    image: {
      readonly inImage: readonly number[]
      readonly epoch: number
      /** Frames that the VM had taken of all that it was given; undefined: all. */
      readonly taken: number | undefined
      readonly where: string
    }
  ): void {
    const { sentCrc, sentColour, gotColour, gotPlace, match, wasGot } = channel
    const { inImage, epoch, taken = Infinity, where } = image
    const gotBefore = lowerBound(gotColour, epoch)
    const afterLast = (got: number): number => {
      for (let at = got - 1; at >= 0; at--) if ((match[at] as number) >= 0) return (match[at] as number) + 1
      return 0
    }
    const first = afterLast(Math.min(gotBefore, lowerBound(gotPlace, taken)))
    const firstNotGiven = afterLast(gotBefore)
    const end = lowerBound(sentColour, epoch)
    // What was passed by a later one is lost for good, and no fault of the cut.
    let lastGot = end - 1
    while (lastGot >= first && wasGot[lastGot] !== true) lastGot--
    const rest = [...inImage]
    let from = 0
    for (let frame = first; frame < end; frame++) {
      if (frame <= lastGot && wasGot[frame] !== true) continue
      const found = rest.indexOf(sentCrc[frame] as number, from)
      if (found < 0) this.#fault('missing', `missing: ${where}: frame ${frame} of ${end} sent before the cut`)
      else {
        this.#sums[frame < firstNotGiven ? 'untaken' : 'inFlight']++
        rest.splice(found, 1)
        from = found
      }
    }
    for (const crc of rest) this.#explain(channel, { crc, epoch, gotBefore, end, where })
  }

  /** A frame of an image that was not in flight. */
  #explain(
    { sentCrc, gotCrc }: Channel,
    frame: { crc: number; epoch: number; gotBefore: number; end: number; where: string }
  ): void {
    const { crc, gotBefore, end, where } = frame
    const given = gotCrc.lastIndexOf(crc, gotBefore - 1)
    if (gotBefore > 0 && given >= 0) this.#sums.duplicates++
    else if (sentCrc.indexOf(crc, end) >= 0) this.#fault('future', `future: ${where}: a frame sent after the cut`)
    else if (sentCrc.lastIndexOf(crc, end - 1) < 0 || end === 0)
      this.#fault('strange', `strange: ${where}: a frame that nobody sent`)
  }

  #fault(kind: Exclude<keyof CutVerdict, 'examples'>, example: string): void {
    this.#sums[kind]++
    if (!this.#examples.has(kind)) this.#examples.set(kind, example)
  }
}

/** How many of a list that never falls are below `value`. */
function lowerBound(list: readonly number[], value: number): number {
  let [low, high] = [0, list.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if ((list[middle] as number) < value) low = middle + 1
    else high = middle
  }
  return low
}

export const checkCuts = (ports: readonly PortLog[], images: readonly ImageFrames[]): CutVerdict =>
  new Checker(ports, images).run()
