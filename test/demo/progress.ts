/** What is going on, live: one spinner line on a terminal, else a plain line for each step with the seconds so far. */
import type { WriteStream } from 'node:tty'

export interface Progress {
  /** A new step begins; the one before is done. */
  step(text: string): void
  /** More about the present step, e.g. "3 of 5 peers"; on a terminal only. */
  detail(text: string): void
  /** A line that stays. */
  note(text: string): void
  /** The last step is done (or given up): the spinner goes. */
  end(done: boolean): void
}

const FRAMES = '⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏'

export function makeProgress(out: Pick<WriteStream, 'isTTY' | 'write' | 'columns'>, now: () => number): Progress {
  const startedAt = now()
  const elapsed = () => `${((now() - startedAt) / 1000).toFixed(1).padStart(5)} s`
  let current: { text: string; detail: string } | undefined
  let turn = 0
  let timer: NodeJS.Timeout | undefined

  const draw = () => {
    if (current === undefined) return
    turn = (turn + 1) % FRAMES.length
    const line = `${elapsed()}  ${FRAMES[turn]} ${current.text}${current.detail === '' ? '' : `: ${current.detail}`}`
    out.write(`\r\u001b[2K${line.slice(0, Math.max(20, (out.columns ?? 80) - 1))}`)
  }
  const finish = (mark: string) => {
    if (current === undefined) return
    if (out.isTTY) out.write(`\r\u001b[2K${elapsed()}  ${mark} ${current.text}\n`)
    current = undefined
  }
  const line = (text: string) => {
    out.write(`${out.isTTY ? '\r\u001b[2K' : ''}${elapsed()}  ${text}\n`)
  }

  return {
    step(text) {
      finish('✓')
      current = { text, detail: '' }
      if (!out.isTTY) line(text)
      else {
        timer ??= setInterval(draw, 100)
        timer.unref()
        draw()
      }
    },
    detail(text) {
      if (current !== undefined) current.detail = text
    },
    note(text) {
      line(`  ${text}`)
    },
    end(done) {
      finish(done ? '✓' : '✗')
      clearInterval(timer)
      timer = undefined
    }
  }
}
