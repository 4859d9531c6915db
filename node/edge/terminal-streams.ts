/** The terminal that somebody sits at, if there is one: who gives the command line its streams makes this of them. */
import { createInterface } from 'node:readline/promises'
import type { ReadStream, WriteStream } from 'node:tty'
import type { Terminal } from './terminal.ts'
import { DiapauseError } from '../errors.ts'

/** `noColor`: as no-color.org has it: set and not empty. */
export interface TerminalStreams {
  readonly input: ReadStream
  readonly output: WriteStream
  readonly errors: WriteStream
  readonly noColor: string | undefined
  /** `TERM`. */
  readonly kind: string | undefined
}

export function createTerminal({ input, output, errors, noColor, kind }: TerminalStreams): Terminal {
  const shows = output.isTTY === true
  return {
    shows,
    asks: input.isTTY === true && errors.isTTY === true,
    color: shows && (noColor ?? '') === '' && kind !== 'dumb',
    write: bytes => void output.write(bytes),
    async ask(question) {
      const lines = createInterface({ input, output: errors })
      try {
        return await lines.question(question)
      } catch (cause) {
        throw new DiapauseError('INTERRUPTED', 'interrupted: nothing was done', { cause })
      } finally {
        lines.close()
      }
    },
    async *keys(signal) {
      // Each key as it is pressed, Ctrl-C, too: what it means is the guest's business.
      input.setRawMode(true)
      const stop = (): void => void input.destroy()
      signal.addEventListener('abort', stop, { once: true })
      try {
        for await (const bytes of input as AsyncIterable<Buffer>) yield bytes
      } catch (error) {
        if (!signal.aborted) throw error
      } finally {
        signal.removeEventListener('abort', stop)
        if (!input.destroyed) input.setRawMode(false)
      }
    }
  }
}
