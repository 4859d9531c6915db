/**
 * What a simulated VM computes: a bank as in `test/guest/bank.c`, small enough that its RAM is a few pages of text. It moves
 * money to the others in numbered transfers over a protocol like TCP: what is not acknowledged is kept and sent again,
 * what comes twice or too early is ignored. So money is lost or made only where a snapshot is not a cut.
 *
 * Frame: Ethernet header, u32 id that the world gives each frame, then kind, number, amount, acknowledgement.
 */
export interface Frame {
  readonly to: string
  readonly bytes: Uint8Array
}

interface Account {
  balance: number
  /** State of the generator that chooses receivers and amounts. */
  chance: number
  ticks: number
}

interface Channel {
  /** Transfers made. */
  sent: number
  /** Amounts of the last of them: those that are not acknowledged. */
  kept: number[]
  /** Transfers taken. */
  received: number
  /** Ticks since the receiver acknowledged something. */
  patience: number
}

export const START_MONEY = 1_000
/** The NIC on the group's own network. */
const OWN_NIC = 0
const ID_AT = 14
const FRAME_BYTES = ID_AT + 4 + 16
/** Transfers on their way to one receiver. */
const WINDOW = 6
/** Ticks without an acknowledgement after which all is sent again. */
const PATIENCE_TICKS = 8
const HOUR_TICKS = 32

export const macOf = (place: number): string => `52:54:00:00:00:${place.toString(16).padStart(2, '0')}`

/** The id that the world has written into a frame. */
export const frameId = (bytes: Uint8Array): number => view(bytes).getUint32(ID_AT)
export const setFrameId = (bytes: Uint8Array, id: number): void => view(bytes).setUint32(ID_AT, id)

/** The group's own frames in a piece of `FrameLog`, as the switch writes them: u8 number of the NIC, u24 length, the frame. */
export function framesIn(piece: Uint8Array): Uint8Array[] {
  const frames: Uint8Array[] = []
  for (let at = 0; at < piece.length; ) {
    const end = at + 4 + (view(piece).getUint32(at) & 0xff_ff_ff)
    if (piece[at] === OWN_NIC) frames.push(piece.subarray(at + 4, end))
    at = end
  }
  return frames
}

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)

export class Bank {
  readonly self: string
  /** All VMs of the group in order: place → id. */
  readonly vms: readonly string[]
  /** Pages written since somebody asked. */
  readonly dirty = new Set<number>()
  #account: Account
  readonly #channels: Channel[]

  constructor(self: string, vms: readonly string[], seed: number) {
    this.self = self
    this.vms = vms
    this.#account = { balance: START_MONEY, chance: seed, ticks: 0 }
    this.#channels = vms.map(() => ({ sent: 0, kept: [], received: 0, patience: 0 }))
  }

  /** An account, a channel for each VM, a page that changes seldom and one that never does. */
  get pages(): number {
    return 1 + this.vms.length + 2
  }

  page(number: number): string {
    if (number === 0) return JSON.stringify(this.#account)
    const channel = this.#channels[number - 1]
    if (channel !== undefined) return JSON.stringify(channel)
    return number === this.pages - 1 ? `program of ${this.self}` : `hour ${this.#hour}`
  }

  load(pages: readonly string[]): void {
    this.#account = JSON.parse(pages[0] as string) as Account
    for (const [i] of this.#channels.entries()) this.#channels[i] = JSON.parse(pages[i + 1] as string) as Channel
  }

  get #hour(): number {
    return Math.floor(this.#account.ticks / HOUR_TICKS)
  }

  /** Transfers taken from all others together. */
  get received(): number {
    return this.#channels.reduce((sum, channel) => sum + channel.received, 0)
  }

  tick(): Frame[] {
    const account = this.#account
    account.ticks += 1
    this.dirty.add(0)
    if (account.ticks % HOUR_TICKS === 0) this.dirty.add(this.pages - 2)
    const frames: Frame[] = []
    for (const [place, channel] of this.#channels.entries()) {
      if (channel.kept.length === 0) continue
      this.dirty.add(place + 1)
      if (++channel.patience < PATIENCE_TICKS) continue
      channel.patience = 0
      channel.kept.forEach((amount, i) => {
        frames.push(this.#frame(place, channel.sent - channel.kept.length + 1 + i, amount))
      })
    }
    account.chance = (Math.imul(account.chance, 1_664_525) + 1_013_904_223) >>> 0
    const place = (account.chance >>> 8) % this.vms.length
    const amount = 1 + ((account.chance >>> 20) % 9)
    const channel = this.#channels[place] as Channel
    if (this.vms[place] === this.self || channel.kept.length >= WINDOW || account.balance < amount) return frames
    account.balance -= amount
    channel.sent += 1
    channel.kept.push(amount)
    this.dirty.add(place + 1)
    frames.push(this.#frame(place, channel.sent, amount))
    return frames
  }

  /** Takes a frame; the result is the answer to it, if any. */
  take(bytes: Uint8Array): Frame[] {
    const data = view(bytes)
    const place = data.getUint8(11)
    const channel = this.#channels[place]
    if (channel === undefined) return []
    this.dirty.add(place + 1)
    const [number, amount, acknowledged] = [data.getUint32(18), data.getUint32(22), data.getUint32(26)]
    const kept = channel.sent - acknowledged
    if (kept < channel.kept.length) {
      channel.kept.splice(0, channel.kept.length - Math.max(0, kept))
      channel.patience = 0
    }
    if (number === 0) return []
    if (number === channel.received + 1) {
      channel.received = number
      this.#account.balance += amount
      this.dirty.add(0)
    }
    return [this.#frame(place, 0, 0)]
  }

  /** Number 0: an acknowledgement only. */
  #frame(place: number, number: number, amount: number): Frame {
    const bytes = new Uint8Array(FRAME_BYTES)
    const data = view(bytes)
    bytes.set([0x52, 0x54, 0, 0, 0, place, 0x52, 0x54, 0, 0, 0, this.vms.indexOf(this.self), 0x88, 0xb5])
    data.setUint32(18, number)
    data.setUint32(22, amount)
    data.setUint32(26, (this.#channels[place] as Channel).received)
    return { to: this.vms[place] as string, bytes }
  }
}

/** A VM as its image has it. */
export interface BankImage {
  readonly pages: readonly string[]
  /** In-flight frames, which the VM takes first. */
  readonly frames: readonly Uint8Array[]
}

/**
 * What is wrong with the images of one epoch, judged by nothing else: money, and for each two VMs that the one has not taken
 * what the other has not sent, nor forgotten what was not taken. Undefined: all is well.
 */
export function auditBanks(vms: readonly string[], images: ReadonlyMap<string, BankImage>): string | undefined {
  const banks = vms.map(vm => {
    const bank = new Bank(vm, vms, 0)
    const image = images.get(vm)
    if (image === undefined) return undefined
    bank.load(image.pages)
    for (const frame of image.frames) bank.take(frame)
    const [account, ...channels] = Array.from({ length: 1 + vms.length }, (_, i) => JSON.parse(bank.page(i)) as unknown)
    return { account: account as Account, channels: channels as Channel[] }
  })
  let money = 0
  for (const [i, bank] of banks.entries()) {
    if (bank === undefined) return `${vms[i]} has no image`
    money += bank.account.balance
    for (const [j, { sent, kept }] of bank.channels.entries()) {
      if (i === j) continue
      const taken = banks[j]?.channels[i]?.received ?? 0
      const channel = `${vms[i]} to ${vms[j]}`
      if (taken > sent) return `${channel}: ${taken} transfers taken of ${sent} sent`
      if (taken < sent - kept.length)
        return `${channel}: ${taken} taken, and what is kept begins after ${sent - kept.length}`
      money += kept.slice(kept.length - (sent - taken)).reduce((sum, amount) => sum + amount, 0)
    }
  }
  const right = START_MONEY * vms.length
  return money === right ? undefined : `${money} in all instead of ${right}`
}
