/**
 * Why a VM of this host does not go on, and frames do not reach it: it has not started, it is in a cut, its lease is not ours, or
 * its group is about to rest. Each reason holds the NIC once, and frames flow when none is left.
 */
import { DiapauseError, messageOf } from '../errors.ts'
import type { Machine, NicPort } from '../ports.ts'

export interface StandstillDeps {
  /** For messages. */
  readonly vm: string
  nic(): Pick<NicPort, 'hold' | 'release'> | undefined
  machine(): Pick<Machine, 'stop' | 'resume'> | undefined
  /** Whether it has been started and not destroyed. */
  isUp(): boolean
  /** The switch is late with something. */
  lags(error: unknown): void
  /** It cannot be used any more. */
  onEnd(reason: string): void
}

export class Standstill {
  readonly #deps: StandstillDeps
  /** Settled when the lease is back, or the VM gone. */
  #fenced: PromiseWithResolvers<void> | undefined
  /** The group is to rest when this epoch is committed. */
  #restsAt: number | undefined
  /** First because the VM does not run yet. */
  #holds = 1

  constructor(deps: StandstillDeps) {
    this.#deps = deps
  }

  /** The lease is not ours. */
  get fenced(): boolean {
    return this.#fenced !== undefined
  }

  /** Resolves when it may go on, or is gone. */
  get unfenced(): Promise<void> {
    return Promise.resolve(this.#fenced?.promise)
  }

  /** VM_FENCED */
  notFenced(): void {
    if (this.#fenced) throw new DiapauseError('VM_FENCED', `VM ${this.#deps.vm} is paused: its lease is not ours now.`)
  }

  /** It runs: the first reason is gone. */
  begun(): void {
    if (this.#fenced) this.#pause()
    this.letGo()
  }

  /** The lease is about to end: nothing moves until `unfence`. A cut under way gives way to it (`Machine.stop`). */
  fence(): void {
    if (this.#fenced) return
    this.#fenced = Promise.withResolvers()
    this.hold()
    this.watch(this.#deps.nic()?.hold())
    if (this.#deps.isUp()) this.#pause()
  }

  unfence(): void {
    if (!this.#fenced) return
    this.#fenced.resolve()
    this.#fenced = undefined
    this.#goOn()
  }

  /** It stands still since its cut to this epoch, until `wake`. */
  rest(epoch: number): void {
    this.#restsAt = epoch
    this.hold()
  }

  /** This epoch, and those before, have come to nothing: a VM that stood still for one goes on. */
  wake(epoch: number): void {
    if (this.#restsAt === undefined || this.#restsAt > epoch) return
    this.#restsAt = undefined
    this.#goOn()
  }

  /** Nobody waits for it any more. */
  end(): void {
    this.#fenced?.resolve()
  }

  /** One more reason for which frames wait, until `letGo`. */
  hold(): void {
    this.#holds++
  }

  /** Frames flow when nobody holds the NIC any more: a lease that is back does not open it inside a cut. */
  letGo(): void {
    this.#holds--
    if (this.#holds === 0) this.watch(this.#deps.nic()?.release())
  }

  /** The switch has taken note, and does it when it can. */
  watch(done: Promise<void> | undefined): void {
    done?.catch((error: unknown) => this.#deps.lags(error))
  }

  /** One reason is gone; where it was the last that stops the machine, that goes on. */
  #goOn(): void {
    const { isUp, machine, onEnd } = this.#deps
    if (!isUp() || this.#fenced || this.#restsAt !== undefined) return this.letGo()
    machine()
      ?.resume()
      .then(
        () => this.letGo(),
        (error: unknown) => onEnd(`it could not go on: ${messageOf(error)}`)
      )
  }

  #pause(): void {
    const { machine, isUp, onEnd } = this.#deps
    machine()
      ?.stop()
      .catch((error: unknown) => {
        if (isUp()) onEnd(`it could not be paused: ${messageOf(error)}`)
      })
  }
}
