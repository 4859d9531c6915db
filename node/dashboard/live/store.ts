/** A value that tells whoever watches when it has changed; components watch with `useValue`. */
import { useEffect, useState } from 'preact/hooks'

export interface Value<T> {
  get(): T
  set(next: T): void
  /** The result ends it. */
  watch(listener: () => void): () => void
}

export function valueOf<T>(first: T): Value<T> {
  let current = first
  const listeners = new Set<() => void>()
  return {
    get: () => current,
    set: next => {
      if (Object.is(next, current)) return
      current = next
      for (const listener of listeners) listener()
    },
    watch: listener => {
      listeners.add(listener)
      return () => listeners.delete(listener)
    }
  }
}

export function useValue<T>(value: Value<T>): T {
  const [shown, show] = useState(() => value.get())
  useEffect(() => {
    show(() => value.get()) // it may have changed between the render and now
    return value.watch(() => show(() => value.get()))
  }, [value])
  return shown
}
