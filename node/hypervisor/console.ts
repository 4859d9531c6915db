/**
 * Typing on the serial console of a VM. QEMU reads it from its standard input, for which nothing else has a use, and writes
 * what the guest says to a file alone. A socket for both (as before) is full after 278 characters that a busy peer has not read
 * (QEMU writes them one by one); then QEMU writes each to the file as often as it tries, and at last lets it go.
 */
import type { Writable } from 'node:stream'
import { DiapauseError } from '../errors.ts'

/** What a guest that does not read may leave here, besides what the kernel holds. A guess: a person's hour. */
const UNREAD_BYTES = 1 << 16

/**
 * Does not wait for the guest, which may never read: whoever asks for another console would wait behind. HYPERVISOR_CONSOLE where the
 * VM's QEMU is gone, or its guest has left too much unread.
 */
export function typeOn(input: Writable, text: string): void {
  if (input.destroyed) throw failed('is gone')
  if (input.writableLength > UNREAD_BYTES) throw failed('does not read what is typed: wait, and type again')
  input.write(text)
}

const failed = (what: string) => new DiapauseError('HYPERVISOR_CONSOLE', `The console of the VM ${what}`)
