/** A guest that reboots resets its machine: QEMU's process and its connections stay. */
import type { Clock, Log, MachineOptions } from '../ports.ts'
import type { QmpClient } from './qmp.ts'

/**
 * A reset so soon after another is of the same reboot: SeaBIOS, begun anew by one, resets once or twice more by itself. So whoever
 * resets again and again is told of once. A guess: longer than a BIOS takes under emulation on a busy host.
 */
const SAME_REBOOT_MS = 10_000

/** Logs each reboot by the guest and calls `onReboot`, until QEMU ends. */
export function tellReboots(
  qmp: Pick<QmpClient, 'waitEvent'>,
  { clock, log }: { readonly clock: Pick<Clock, 'now'>; readonly log: Pick<Log, 'info'> },
  machine: Pick<MachineOptions, 'spec' | 'onReboot'>
): void {
  let lastMs = Number.NEGATIVE_INFINITY
  // No event ends the wait, so it is told of each.
  void qmp.waitEvent('RESET', ({ data }) => {
    if (data['guest'] !== true) return false
    const again = clock.now() - lastMs < SAME_REBOOT_MS
    lastMs = clock.now()
    if (again) return false
    log.info({ vm: machine.spec.id }, 'rebooted by its guest')
    machine.onReboot?.()
    return false
  })
}
