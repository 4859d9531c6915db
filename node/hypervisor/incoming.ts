/** What a QEMU that waits (`-incoming defer`) is told, and how its stream may end. */
import { rm } from 'node:fs/promises'
import { DiapauseError } from '../errors.ts'
import { migrationEnd } from './background-snapshot.ts'
import type { QmpClient } from './qmp.ts'
import type { QmpEvent } from './qmp-protocol.ts'

/** QEMU listens on `socketPath` when this resolves; a stale socket file there is removed. */
export async function listenForStream(qmp: QmpClient, socketPath: string): Promise<void> {
  await rm(socketPath, { force: true })
  await qmp.command('migrate-incoming', { uri: `unix:${socketPath}` })
}

/** Settles when all of a stream has come. HYPERVISOR_INCOMING where it breaks off: that VM can only be killed. */
export async function wholeStream(vm: string, ended: Promise<QmpEvent>): Promise<void> {
  const { status } = (await ended).data
  if (status === 'completed') return
  throw new DiapauseError(
    'HYPERVISOR_INCOMING',
    `The source of the pages of VM ${vm} broke off (QEMU says ${String(status)}): ` +
      'the VM has been killed, as the pages that it lacks will not come',
    { details: { status } }
  )
}

/**
 * Loads the devices of a VM whose RAM is there, which come on `socketPath`; `connectable` is called when QEMU listens. The VM
 * stands still then. As `wholeStream`.
 */
export async function loadDevices(
  qmp: QmpClient,
  vm: string,
  { socketPath, connectable }: { readonly socketPath: string; connectable(): void }
): Promise<void> {
  const ended = migrationEnd(qmp)
  await listenForStream(qmp, socketPath)
  connectable()
  await wholeStream(vm, ended)
}
