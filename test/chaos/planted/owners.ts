/** Mistakes about who may run a VM. */
import type { Mistake } from './mistake.ts'
import { hostsAreCutOff, peersStop } from './scenarios.ts'

export const OWNER_MISTAKES: readonly Mistake[] = [
  {
    name: 'no-lease-check-after-a-stop',
    file: 'protocols/lease/holder.ts',
    edits: [
      {
        find: 'return held?.generation === generation ? Math.max(0, held.endMs - nowMs) : 0',
        replace: "return held?.generation === generation && held.state === 'held' ? this.#settings.durationMs : 0"
      },
      {
        find: "if (held.state !== 'held' || nowMs < held.endMs - this.#marginMs) continue",
        replace:
          "if (held.state !== 'held' || nowMs < held.endMs - this.#marginMs || nowMs > held.endMs + this.#marginMs) continue"
      }
    ],
    why: 'a timer ends the lease, and one that comes late ends nothing: who stood still goes on as owner until a voter says otherwise',
    scenario: peersStop,
    seed: 1,
    promises: ['one copy']
  },
  {
    name: 'lease-without-a-majority',
    file: 'protocols/lease/holder.ts',
    edits: [{ find: 'const majority = majorityOf(this.#voters.ids.length)', replace: 'const majority = 1' }],
    why: 'one voter, and be it the owner itself, is enough to go on',
    scenario: hostsAreCutOff,
    seed: 1,
    promises: ['one copy']
  },
  {
    name: 'displaced-owner-keeps-its-vms',
    file: 'node/agents/local-vm.ts',
    edits: [{ find: '      this.#machine?.destroy(),\n', replace: '' }],
    why: 'a VM that runs elsewhere is silenced here, and its hypervisor is left',
    scenario: hostsAreCutOff,
    seed: 1,
    promises: ['one hypervisor']
  }
]
