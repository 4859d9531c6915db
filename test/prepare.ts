/**
 * Before the first test with a virtual machine: the guest is built, once, and apt has its lists by then, of which two at the same
 * time would be one too many. Where it cannot be built, each test that needs it says so.
 */
import { buildGuest } from './guest/build.ts'

export async function setup(): Promise<void> {
  await buildGuest().catch(() => {})
}
