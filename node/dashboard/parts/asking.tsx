/** What the dialogs of actions have in common: how far it is, what came of it, and the buttons below. */
import type { ComponentChildren } from 'preact'
import type { Work } from '../live/work.ts'
import { Mark } from './marks.tsx'

export interface ActionProps {
  readonly group: string
  /** It rests now. */
  readonly resting: boolean
  readonly close: () => void
}

/** How far it is, or what came of it; heard by who does not see it. */
export function Outcome<T>({ work, children }: { work: Work<T>; children: (result: T) => ComponentChildren }) {
  return (
    <div class="outcome" aria-live="polite">
      {work.state === 'busy' && (
        <>
          <Mark tone="busy">{work.text}</Mark>
          <progress {...(work.part !== undefined && { value: work.part })} aria-label="Progress" />
        </>
      )}
      {work.state === 'done' && children(work.result)}
      {work.state === 'failed' && <p class="fault">{work.message}</p>}
    </div>
  )
}

interface NameProps {
  readonly group: string
  readonly typed: string
  readonly type: (text: string) => void
}

/** Before something is lost, the group's name must be typed. */
export const TypedName = ({ group, typed, type }: NameProps) => (
  <label>
    Type {group} to confirm
    <input autocomplete="off" spellcheck={false} value={typed} onInput={event => type(event.currentTarget.value)} />
  </label>
)

interface ButtonsProps {
  readonly work: Work<unknown>
  readonly run: () => void
  readonly close: () => void
  /** What is done by it. */
  readonly word: string
  readonly danger?: boolean
  readonly ready?: boolean
}

export function Buttons({ work, run, close, word, danger = false, ready = true }: ButtonsProps) {
  const over = work.state === 'done'
  return (
    <p class="buttons">
      <button type="button" onClick={close}>
        {over ? 'Close' : 'Cancel'}
      </button>
      {!over && (
        <button
          type="button"
          class={danger ? 'danger' : 'main'}
          disabled={!ready || work.state === 'busy'}
          onClick={run}
        >
          {work.state === 'failed' ? `${word} (again)` : word}
        </button>
      )}
    </p>
  )
}
