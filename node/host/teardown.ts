/** The end of a peer. */
import { messageOf } from '../errors.ts'
import type { Log } from '../ports.ts'

/** Undoes what was built so far, the last first; each step is tried, whatever the others did. */
export class Teardown {
  readonly #steps: (() => unknown)[] = []

  add(step: () => unknown): void {
    this.#steps.unshift(step)
  }

  async run(log: Log): Promise<void> {
    for (const step of this.#steps.splice(0)) {
      try {
        await step()
      } catch (error) {
        log.warn({ error: messageOf(error) }, 'a part did not stop cleanly')
      }
    }
  }
}
