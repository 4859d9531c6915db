/** A guest that reboots resets its machine: QEMU's process and its connections stay. */
import type { QmpClient } from './qmp.ts'

/** Calls `tell` at each reset by the guest, until QEMU ends. SeaBIOS, begun anew by one, resets once or twice more by itself. */
export function tellResets(qmp: QmpClient, tell: () => void): void {
  // No event ends the wait, so it is told of each.
  void qmp.waitEvent('RESET', ({ data }) => {
    if (data['guest'] === true) tell()
    return false
  })
}
