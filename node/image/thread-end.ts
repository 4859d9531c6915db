/**
 * Ending a thread that packs. Where Node 24 terminates a thread between the making of a zlib handle and its initialisation,
 * an assertion ends the whole process (node_zlib.cc, "close before init"): here a peer with all its VMs, because one VM
 * was taken over in the middle of an epoch. A thread that did nothing but pack 64 KiB pieces met it within 50
 * terminations each time it was tried. So the thread is asked first to stand still for good, which it does between two
 * pieces of work, where it makes no handle; that takes as long as the piece it has in hand. The addon that codes shards asserts
 * too, that its making was not interrupted: so one that is still loading is waited for as well, some 100 ms.
 */

/**
 * A thread that has not stood still by then is ended all the same. Not sooner: the process may go with it. On two cores with a load
 * of 10 one that was just loading took more than 2 s (seen once in a test); five times that is a guess.
 */
const LIMIT_MS = 10_000

const STANDS = 1

/** In the thread, from its event loop: does not return. */
export function standStill(flag: Int32Array): void {
  Atomics.store(flag, 0, STANDS)
  Atomics.notify(flag, 0)
  for (;;) Atomics.wait(flag, 0, STANDS)
}

/** Settles when the thread stands still, or is gone: `ask` has it call `standStill` and settles only where it cannot. */
export async function stoodStill(ask: (flag: Int32Array) => Promise<unknown>): Promise<void> {
  const flag = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT))
  const gone = ask(flag).catch(() => {})
  await Promise.race([Atomics.waitAsync(flag, 0, 0, LIMIT_MS).value, gone])
}
