/** A part of a page with a heading; what it says while nothing was read yet, and when nothing can be. */
import type { ComponentChildren } from 'preact'
import { useId } from 'preact/hooks'
import type { Read } from '../live/resource.ts'

interface PanelProps {
  readonly title: string
  /** Beside the heading: buttons, a number. */
  readonly aside?: ComponentChildren
  readonly children: ComponentChildren
  readonly kind?: string
}

export function Panel({ title, aside, children, kind = '' }: PanelProps) {
  const id = useId()
  return (
    <section class={`panel ${kind}`} aria-labelledby={id}>
      <header>
        <h2 id={id}>{title}</h2>
        {aside !== undefined && <div class="aside">{aside}</div>}
      </header>
      {children}
    </section>
  )
}

/** Shows what was read; before that, that it is coming, or why it is not. A later failure stands above the older data. */
export function Loaded<T>({ read, children }: { read: Read<T>; children: (data: T) => ComponentChildren }) {
  const { data, error } = read
  if (data === undefined && error === undefined) return <p class="empty">Reading…</p>
  return (
    <>
      {error !== undefined && (
        <p class="fault" role="alert">
          {error.message}
          {data !== undefined && '\nWhat you see is from before.'}
        </p>
      )}
      {data !== undefined && children(data)}
    </>
  )
}
