/** The recovery key of a second home: made here, so that no peer ever has it, and read from a person's file. */
import { randomBytes } from 'node:crypto'
import {
  RECOVERY_KEY_BYTES,
  recoveryKeyText,
  recoveryName,
  recoveryPublic
} from '../../protocols/membership/recovery.ts'
import { readPrivateFile } from '../private-file.ts'

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

const FILE = {
  what: 'the recovery key',
  /** As many as the API takes: one has 69. */
  maxBytes: 1_000,
  unreadable: 'RECOVERY_KEY',
  exposed: 'RECOVERY_KEY_EXPOSED'
}

/** UsageError RECOVERY_KEY, RECOVERY_KEY_EXPOSED; no message has anything of what is in the file. */
export const readRecoveryKey = async (file: string): Promise<string> => (await readPrivateFile(file, FILE)).trim()
