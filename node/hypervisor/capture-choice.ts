/** How this host's VMs are cut: as the settings ask for, or the best that works. */
import { UsageError, messageOf } from '../errors.ts'
import type { TrialOptions } from './accel.ts'
import { trialCapture } from './capture-trial.ts'
import type { Accel } from './command-line.ts'
import { RamFolder } from './shared-ram.ts'

export interface CaptureChoice {
  /** Where RAM can be tracked; undefined: VMs are cut by background snapshots. */
  readonly ramFolder: RamFolder | undefined
  /** Why it cannot, or may not, and what to do about it; undefined where it can. */
  readonly why: string | undefined
}

/** UsageError HYPERVISOR_CAPTURE where dirty capture is demanded and does not work. */
export async function chooseCapture(options: TrialOptions & { readonly accel: Accel }): Promise<CaptureChoice> {
  const { settings, runDir, nativeDir, clock, log } = options
  if (settings.capture === 'portable') return { ramFolder: undefined, why: 'hypervisor.capture is "portable"' }
  let ramFolder: RamFolder | undefined
  try {
    const tried = await RamFolder.probe({ folder: settings.ramDir, runDir, clock, nativeDir })
    ramFolder = tried
    const fromMs = clock.now()
    await trialCapture({ ...options, makeRam: bytes => tried.make(bytes) })
    log.debug({ trialMs: clock.now() - fromMs }, 'images of a trial VM were its RAM')
    return { ramFolder, why: undefined }
  } catch (cause) {
    await ramFolder?.close()
    const why = messageOf(cause)
    if (settings.capture === 'dirty') {
      throw new UsageError(
        'HYPERVISOR_CAPTURE',
        `hypervisor.capture is "dirty", but that does not work here: ${why}. Mend it, or set it to "auto" or "portable"`,
        { cause }
      )
    }
    log.warn({ why }, 'written pages cannot be tracked here: every cut streams all RAM (hypervisor.capture)')
    return { ramFolder: undefined, why }
  }
}
