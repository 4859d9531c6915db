/** Small signs that stand for a state: each has a shape and a word, never a colour alone. */
import type { ComponentChildren } from 'preact'
import { ageOf, momentOf } from '../model/text.ts'
import { now } from '../live/clock.ts'
import { useValue } from '../live/store.ts'

export type Tone = 'good' | 'busy' | 'warn' | 'bad' | 'none'

const shapes: Readonly<Record<Tone, ComponentChildren>> = {
  good: <circle cx="6" cy="6" r="4.5" />,
  busy: <path d="M6 1.5a4.5 4.5 0 0 1 0 9z M6 2.25a3.75 3.75 0 1 0 0 7.5" fill-rule="evenodd" />,
  warn: <path d="M6 1 11.2 10.4H.8z" />,
  bad: <path d="M3.5.8h5L11.2 3.5v5L8.5 11.2h-5L.8 8.5v-5z" />,
  none: <circle cx="6" cy="6" r="3.6" fill="none" stroke="currentColor" stroke-width="1.6" />
}

export const Sign = ({ tone }: { tone: Tone }) => (
  <svg class={`sign ${tone}`} viewBox="0 0 12 12" aria-hidden="true">
    {shapes[tone]}
  </svg>
)

export const Mark = ({ tone, children }: { tone: Tone; children: ComponentChildren }) => (
  <span class="mark">
    <Sign tone={tone} />
    {children}
  </span>
)

/** '12 s ago', growing. `atMs` by the clock of the peer, which is `aheadMs` before that of this browser. */
export function Ago({ atMs, aheadMs = 0 }: { atMs: number | undefined; aheadMs?: number }) {
  const nowMs = useValue(now)
  if (atMs === undefined) return <span class="faint">–</span>
  const age = ageOf(nowMs + aheadMs - atMs)
  return (
    <time dateTime={new Date(atMs).toISOString()} title={momentOf(atMs)}>
      {age === 'now' ? 'just now' : `${age} ago`}
    </time>
  )
}

/** How much of something is used, with the numbers in words. */
export function Meter({ part, whole, label }: { part: number; whole: number; label: string }) {
  const share = whole > 0 ? Math.min(1, part / whole) : 0
  const tone = share > 0.95 ? 'bad' : share > 0.8 ? 'warn' : 'good'
  return (
    <svg class={`meter ${tone}`} role="img" aria-label={label} viewBox="0 0 100 6" preserveAspectRatio="none">
      <rect class="whole" width="100" height="6" rx="1" />
      <rect class="part" width={100 * share} height="6" rx="1" />
    </svg>
  )
}
