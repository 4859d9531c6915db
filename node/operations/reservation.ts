/** Keeps a name that was taken for an import (`reserveGroup`) from being forgotten while the images are stored. */
import { renewReservation } from '../../protocols/epoch/record.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import { DiapauseError, messageOf } from '../errors.ts'
import type { Clock, Log } from '../ports.ts'

/** Three renewals in the time after which it would be forgotten: two may fail. A guess. */
const RENEWALS = 3

export interface ReservationDeps {
  readonly directory: Pick<GroupDirectory, 'change'>
  readonly clock: Clock
  readonly log: Log
  readonly forgetRemovedMs: number
}

export class Reservation {
  readonly record: GroupRecord
  readonly #deps: ReservationDeps
  #cancel: () => void = () => {}
  #ended = false
  #lost = false

  constructor(deps: ReservationDeps, record: GroupRecord) {
    this.#deps = deps
    this.record = record
    this.#later()
  }

  /** RESERVATION_LOST. */
  check(): void {
    if (this.#lost) throw reservationLost(this.record.id)
  }

  end(): void {
    this.#ended = true
    this.#cancel()
  }

  #later(): void {
    const { clock, forgetRemovedMs, log } = this.#deps
    if (this.#ended) return
    this.#cancel = clock.after(forgetRemovedMs / RENEWALS, () => {
      this.#renew()
        .catch((error: unknown) =>
          log.warn({ group: this.record.id, error: messageOf(error) }, 'the name of an import could not be kept yet')
        )
        .finally(() => this.#later())
    })
  }

  async #renew(): Promise<void> {
    const now = await this.#deps.directory.change(this.record.id, renewReservation(this.record))
    if (now?.removed !== true || now.generation !== this.record.generation) this.#lost = !this.#ended
  }
}

export const reservationLost = (group: string): DiapauseError =>
  new DiapauseError(
    'RESERVATION_LOST',
    `The name "${group}" was taken for this import, and is not any more: another import, or group, has taken it, or this peer was cut off for too long. Look at \`diapause status\`, and begin again.`
  )
