import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import { killStaleMachines } from '../../node/hypervisor/stale.ts'
import { bankVm, buildGuest } from '../guest/build.ts'
import { parseConsole } from '../guest/console.ts'

import { hypervisorContract } from './hypervisor-contract.ts'
import { sourceImage } from './postcopy-source.ts'
import { clock, memoryLog } from './real-clock.ts'

for (const capture of ['portable', 'dirty'] as const) {
  hypervisorContract({
    name: `QEMU with ${capture} capture`,
    make: (peer, runDir) => {
      const settings = {
        qemu: 'qemu-system-x86_64',
        accel: 'auto',
        capture,
        ramDir: '/dev/shm',
        trialMs: 5_000
      } as const
      return createQemuHypervisor({ settings, peer, runDir, log: memoryLog(), clock })
    },
    killStale: (peer, runDir) => killStaleMachines(peer, { runDir, clock }),
    guest: async () => ({
      // A bank of one VM: it answers an audit at once.
      spec: bankVm(await buildGuest(), { index: 1, total: 1, memoryMiB: 128 }),
      question: number => `audit ${number}`,
      answered: (console, number) => parseConsole(console).some(report => report.id === number),
      identity: console => parseConsole(console).at(-1)?.nonce ?? ''
    }),
    source: sourceImage
  })
}
