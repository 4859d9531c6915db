/**
 * A whole group on lossy links, and its history: every send, delivery and cut with its moment. What was in flight at a
 * cut can be read off the history by the definition, which is what the receivers' recordings are compared with.
 */
import { ChannelSender } from '../../protocols/epoch/channel.ts'
import { FRAME_BYTES, frame, receiverAt } from './channel-receiver.ts'
import { DiskKeeper } from './chunk-keepers.ts'

export const VMS = ['a', 'b', 'c']

/** VMs by their index in `VMS`. */
export type Action =
  | { do: 'send'; from: number; to: number }
  | { do: 'carry'; from: number; to: number; lost: boolean }
  | { do: 'cut'; vm: number }
  | { do: 'abort'; late: number }
  | { do: 'open'; vm: number; open: boolean }
  | { do: 'count'; from: number; to: number }
  | { do: 'disk'; vm: number; write: boolean }

/** What a link carries: a frame, or the turn record behind all frames of the old colour. */
type Carried =
  | { readonly id: number; readonly colour: number; readonly sequence: number }
  | { readonly id: undefined; readonly colour: number; readonly sent: number }

interface History {
  readonly id: number
  readonly from: number
  readonly to: number
  readonly sentAt: number
  lost: boolean
  /** Infinity: not yet. */
  deliveredAt: number
}

type Node = ReturnType<typeof receiverAt> & {
  readonly sender: ChannelSender
  readonly keeper: DiskKeeper
  /** Epoch → what the sender had sent to whom. */
  readonly counts: Map<number, Readonly<Record<string, number>>>
}

function nodeOf(name: string): Node {
  const others = VMS.filter(other => other !== name)
  const keeper = new DiskKeeper(2 * FRAME_BYTES)
  const outcome = receiverAt(0, others, keeper)
  outcome.receiver.setOpen(0, true)
  return { ...outcome, keeper, sender: new ChannelSender(0), counts: new Map() }
}

const nameOf = (vm: number): string => VMS[vm] as string

export class GroupModel {
  readonly nodes: readonly Node[] = VMS.map(nodeOf)
  /** By frame id. */
  readonly frames: History[] = []
  /** Epoch → VM → the moment of its cut. */
  readonly cuts = new Map<number, Map<number, number>>()
  readonly abortedEpochs = new Set<number>()
  readonly #links = new Map<string, Carried[]>()
  #epoch = 1
  #moment = 0

  /** The open epoch. */
  get epoch(): number {
    return this.#epoch
  }

  act(action: Action): void {
    this.#moment++
    switch (action.do) {
      case 'send':
        if (action.from !== action.to) this.#send(action.from, action.to)
        break
      case 'carry':
        this.#carry(action.from, action.to, action.lost)
        break
      case 'cut':
        this.#cut(action.vm)
        break
      case 'abort':
        this.#abort(action.late)
        break
      case 'open':
        this.#at(action.vm).receiver.setOpen(0, action.open)
        break
      case 'count':
        this.#count(action.from, action.to)
        break
      case 'disk':
        if (action.write) this.#at(action.vm).keeper.write()
        else this.#at(action.vm).keeper.read()
    }
    this.#noteDeliveries()
    const epoch = this.#epoch
    const ended = this.nodes.every(
      ({ receiver, recorded, failed }) => receiver.colour === epoch && (recorded.has(epoch) || failed.has(epoch))
    )
    if (ended) this.#epoch++
  }

  /** Faults stop: the open epoch ends, and so does one more. All that is on disk comes back. */
  finish(): void {
    this.#runEpoch()
    this.#epoch++
    this.#runEpoch()
    this.#moment++
    for (let left = this.frames.length; left >= 0; left--) for (const { keeper } of this.nodes) keeper.read()
    this.#noteDeliveries()
  }

  #runEpoch(): void {
    for (const { receiver } of this.nodes) receiver.setOpen(0, true)
    this.#noteDeliveries()
    for (const vm of VMS.keys()) this.#cut(vm)
    for (const from of VMS.keys()) {
      for (const to of VMS.keys()) while (this.#link(from, to).length > 0) this.#carry(from, to, false)
    }
    for (const from of VMS.keys()) for (const to of VMS.keys()) this.#count(from, to)
    this.#moment++
    this.#noteDeliveries()
  }

  #send(from: number, to: number): void {
    const { sender } = this.#at(from)
    const id = this.frames.length
    this.frames.push({ id, from, to, sentAt: this.#moment, lost: false, deliveredAt: Number.POSITIVE_INFINITY })
    this.#link(from, to).push({ id, colour: sender.colour, sequence: sender.next(nameOf(to)) })
  }

  /** Takes what comes next on the link to its end, or loses it. */
  #carry(from: number, to: number, lost: boolean): void {
    const carried = this.#link(from, to).shift()
    if (carried === undefined) return
    const { receiver } = this.#at(to)
    if (carried.id === undefined) {
      if (!lost) receiver.turned(nameOf(from), carried.colour, carried.sent)
    } else if (lost) this.#historyOf(carried.id).lost = true
    else receiver.arrive(nameOf(from), carried.colour, carried.sequence, frame(carried.id))
  }

  #cut(vm: number): void {
    const { receiver, sender, counts } = this.#at(vm)
    const epoch = this.#epoch
    if (receiver.colour >= epoch) return
    const moments = this.cuts.get(epoch) ?? new Map<number, number>()
    this.cuts.set(epoch, moments.set(vm, this.#moment))
    this.#moment++
    receiver.turn(epoch, [])
    counts.set(epoch, sender.turn(epoch))
    for (const to of VMS.keys()) {
      if (to === vm) continue
      this.#link(vm, to).push({ id: undefined, colour: epoch, sent: sender.sentBeforeTurn(nameOf(to)) })
    }
  }

  /** One VM learns of it only by the next epoch, which is opened at once. */
  #abort(late: number): void {
    const epoch = this.#epoch
    this.abortedEpochs.add(epoch)
    for (const [vm, { receiver, sender }] of this.nodes.entries()) {
      if (vm === late) continue
      receiver.abandon(epoch)
      if (sender.colour < epoch) sender.turn(epoch)
    }
    this.#epoch++
  }

  #count(from: number, to: number): void {
    const counts = this.#at(from).counts.get(this.#epoch)
    if (counts === undefined || from === to) return
    this.#at(to).receiver.expect(this.#epoch, nameOf(from), counts[nameOf(to)] ?? 0)
  }

  #noteDeliveries(): void {
    for (const { delivered } of this.nodes) {
      for (const id of delivered) {
        const sent = this.#historyOf(id)
        if (sent.deliveredAt === Number.POSITIVE_INFINITY) sent.deliveredAt = this.#moment
      }
    }
  }

  #at(vm: number): Node {
    return this.nodes[vm] as Node
  }

  #historyOf(id: number): History {
    return this.frames[id] as History
  }

  #link(from: number, to: number): Carried[] {
    const key = `${from}>${to}`
    const link = this.#links.get(key) ?? []
    this.#links.set(key, link)
    return link
  }
}
