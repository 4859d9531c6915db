import type { Clock, Log } from '../../node/ports.ts'

/** This machine's clock. */
export const clock: Clock = {
  now: () => performance.now(),
  after: (ms, fn) => {
    const timer = setTimeout(fn, ms)
    return () => clearTimeout(timer)
  }
}

const quiet = (): void => {}

export const quietLog: Log = { debug: quiet, info: quiet, warn: quiet, error: quiet }

/** A log that keeps what is logged, for looking at. */
export function memoryLog(): Log & { readonly lines: { level: string; message: string; fields: object }[] } {
  const lines: { level: string; message: string; fields: object }[] = []
  const at = (level: string) => (fields: object, message: string) => void lines.push({ level, message, fields })
  return { lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}
