/** `diapause recovery-key new`: made here, so that no peer ever has it. */
import { randomBytes } from 'node:crypto'
import {
  RECOVERY_KEY_BYTES,
  recoveryKeyText,
  recoveryName,
  recoveryPublic
} from '../../protocols/membership/recovery.ts'

export interface NewRecoveryKey {
  /** For a person to keep. */
  readonly text: string
  /** `recoveryName` of the public part. */
  readonly name: string
  /** For the cluster's record. */
  readonly public: string
}

export function newRecoveryKey(): NewRecoveryKey {
  const secret = new Uint8Array(randomBytes(RECOVERY_KEY_BYTES))
  const publicPart = recoveryPublic(secret)
  return { text: recoveryKeyText(secret), name: recoveryName(publicPart), public: publicPart }
}
