/**
 * A checker that has never seen a fault proves nothing. Loaded into peers in the place of the recorder, as `sabotagePreload`
 * says, this loads the recorder and breaks the switch below it: `epochs --sabotage NAME` must find what was done.
 */
import { pathToFileURL } from 'node:url'
import { isMainThread } from 'node:worker_threads'
import { ChannelReceiver } from '../../protocols/epoch/channel.ts'
import { WaitingFrames } from '../../protocols/epoch/channel-waiting.ts'
import { VmPort } from '../../node/switch/port.ts'

export const SABOTAGES = {
  /** Early frames are given to the VM at once. */
  early: () => {
    WaitingFrames.prototype.hold = function (_, frame) {
      this.take(frame)
    }
  },
  /** Early frames are given to nobody. */
  'early-dropped': () => {
    WaitingFrames.prototype.hold = () => {}
  },
  /** In-flight frames are given to the VM and not recorded: neither those that wait at its cut, nor those that come later. */
  'in-flight': () => {
    const { arrive } = ChannelReceiver.prototype
    const { upTo } = WaitingFrames.prototype
    ChannelReceiver.prototype.arrive = function (sender, colour, ...rest) {
      return arrive.call(this, sender, Math.max(colour, this.colour), ...rest)
    }
    WaitingFrames.prototype.upTo = function (colour) {
      return Number.isFinite(colour) ? [] : upTo.call(this, colour)
    }
  },
  /** Frames are written to the VM's socket while it stands still for its cut, and what it has not taken is not recorded. */
  untaken: () => {
    const { turn } = ChannelReceiver.prototype
    VmPort.prototype.hold = async () => {}
    ChannelReceiver.prototype.turn = function (epoch) {
      turn.call(this, epoch, [])
    }
  }
} as const

export type Sabotage = keyof typeof SABOTAGES

export const isSabotage = (name: string): name is Sabotage => Object.hasOwn(SABOTAGES, name)

/** What a peer is to load before its program. */
export const sabotagePreload = (name: Sabotage): string => `${pathToFileURL(import.meta.filename).href}?name=${name}`

const name = new URL(import.meta.url).searchParams.get('name')
if (name !== null && isSabotage(name) && isMainThread) {
  await import('./cut-checker-recorder.ts')
  SABOTAGES[name]()
}
