/**
 * What is said to a guest that went back to an image, by its agent, once the VM runs. Nothing waits for it: the VM has begun
 * to run already, and what does not work is told of and left.
 *
 * The time first. A VM that was restored goes on with the clocks of the moment of its cut: CLOCK_REALTIME is behind by what
 * has passed since, and nothing in a Linux guest looks (measured with the TSC and the HPET under TCG; QEMU saves and sets
 * kvm-clock, too: hw/i386/kvm/clock.c). CLOCK_MONOTONIC is as it should be, for the VM has not run, and is left alone: moved
 * on, all its timers would run out at once. So the wall clock is set, as VMware's and Hyper-V's guest services do after a
 * restore, and `VmSpec.clock` says where not to.
 */
import { GUEST_AGENT_TIMEOUT_MS, nicsOf, UPLINK_NETWORK, type VmSpec } from '../../protocols/group.ts'
import { hasCode, messageOf } from '../errors.ts'
import type { Clock, GuestAgent } from '../ports.ts'

export interface GuestToTell {
  readonly spec: Pick<VmSpec, 'clock' | 'guestAgent'>
  readonly agent: GuestAgent | undefined
}

export interface TellingDeps {
  readonly clock: Pick<Clock, 'now'>
  /** Wall clock, milliseconds. */
  wallMs(): number
  /** Whether NICs on network "uplink" lead anywhere from this host. */
  readonly uplink: boolean
  readonly report: (kind: string, fields: Record<string, unknown>) => void
}

/** After a restore: the time, then the program of `afterRestore`. Never rejects. */
export async function tellOfRestore(guest: GuestToTell, deps: TellingDeps): Promise<void> {
  await tellTime(guest, deps)
  const { agent, spec } = guest
  const program = spec.guestAgent?.afterRestore
  if (agent === undefined || program === undefined) return
  await attempt(program[0] as string, deps, async () => {
    const beganMs = deps.clock.now()
    const exitCode = await agent.run(program, timeoutOf(guest))
    deps.report('vm.guest-told', { program: program[0], exitCode, tookMs: deps.clock.now() - beganMs })
  })
}

/** Sets the guest's wall clock where that is wanted: after a restore, and when a VM goes on that stood still. Never rejects. */
export async function tellTime(guest: GuestToTell, deps: TellingDeps): Promise<void> {
  const { agent, spec } = guest
  if (agent === undefined || spec.clock === 'continue') return
  await attempt('the time', deps, async () => {
    const beganMs = deps.clock.now()
    let afterMs = 0
    const nowMs = () => {
      afterMs = deps.clock.now() - beganMs
      return deps.wallMs()
    }
    await agent.setTime(nowMs, timeoutOf(guest))
    deps.report('vm.clock-set', { afterMs })
  })
}

/** Each host has its own way to the outside, or none: a VM may lose it by a move. */
export function tellUplink(spec: VmSpec, { uplink, report }: Pick<TellingDeps, 'uplink' | 'report'>): void {
  if (uplink || !nicsOf(spec).some(({ network }) => network === UPLINK_NETWORK)) return
  report('vm.without-uplink', {
    warning: 'its NIC on network "uplink" leads nowhere: switch.uplink of this peer is "none"'
  })
}

const timeoutOf = ({ spec }: GuestToTell): number => spec.guestAgent?.timeoutMs ?? GUEST_AGENT_TIMEOUT_MS

/** A VM that has ended meanwhile needs no word. */
async function attempt(what: string, { report }: TellingDeps, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    if (!hasCode(error, 'GUEST_AGENT_GONE')) report('vm.guest-not-told', { what, warning: messageOf(error) })
  }
}
