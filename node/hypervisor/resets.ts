/**
 * A guest that reboots resets its machine: QEMU's process and its connections stay. One that turns itself off (ACPI) leaves QEMU
 * standing, too (`-no-shutdown`), and is reset by us: so it boots anew, and nobody else's VM has to go back with it.
 *
 * QEMU's main loop does what a guest asks for. Where the VM ran, it stands then in the state 'shutdown', which only a reset ends. Where
 * the main loop was just stopping it, it tells of the wish and does nothing: the VM is 'paused', and its guest would wait for ever for
 * its power to go. So the event is what counts, and not the state; and neither VM may be saved.
 */
import type { Clock, Log, MachineOptions, Reboot } from '../ports.ts'
import { continueAfterDevices } from './device-state.ts'
import type { QmpClient } from './qmp.ts'

/**
 * A reset so soon after another is of the same reboot: SeaBIOS, begun anew by one, resets once or twice more by itself. So whoever
 * resets again and again is told of once. A guess: longer than a BIOS takes under emulation on a busy host.
 */
const SAME_REBOOT_MS = 10_000

const WORDS = { rebooted: 'rebooted by its guest', 'powered-off': 'powered off by its guest: it boots anew' }

type Qmp = Pick<QmpClient, 'waitEvent' | 'command'>

export interface GuestPower {
  /** Its guest has turned it off, and it has not been reset since. */
  readonly off: boolean
  /** Where it is off, and no stream is being begun: resets it and has it run. Whether it was. QMP_REFUSED where QEMU does not obey. */
  bootAnew(): Promise<boolean>
}

/** Logs what guests do to their machines and calls `onReboot`, until QEMU ends. `onOff`: it waits for `bootAnew`. */
export function watchResets(
  qmp: Qmp,
  { clock, log }: { readonly clock: Clock; readonly log: Pick<Log, 'info'> },
  machine: Pick<MachineOptions, 'spec' | 'onReboot'>,
  onOff: () => void
): GuestPower {
  const lastMs = { rebooted: Number.NEGATIVE_INFINITY, 'powered-off': Number.NEGATIVE_INFINITY }
  let off = false
  const tell = (how: Reboot): void => {
    const again = clock.now() - lastMs[how] < SAME_REBOOT_MS
    lastMs[how] = clock.now()
    if (again) return
    log.info({ vm: machine.spec.id }, WORDS[how])
    machine.onReboot?.(how)
  }
  // No event ends these waits, so they are told of each.
  void qmp.waitEvent('RESET', ({ data }) => {
    if (data['guest'] === true) tell('rebooted')
    else lastMs.rebooted = clock.now() // of the one that follows the BIOS's own resets are
    return false
  })
  void qmp.waitEvent('SHUTDOWN', ({ data }) => {
    if (data['guest'] !== true) return false
    off = true
    tell('powered-off')
    onOff()
    return false
  })
  const bootAnew = async (): Promise<boolean> => {
    if (!off) return false
    off = false
    const reset = qmp.waitEvent('RESET', ({ data }) => data['guest'] !== true)
    await qmp.command('system_reset')
    await reset // it is done when the main loop has its turn; `cont` is refused before
    await continueAfterDevices(qmp, clock)
    return true
  }
  return {
    get off() {
      return off
    },
    bootAnew
  }
}
