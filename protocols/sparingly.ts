/**
 * What happens again and again is told the 1st, 2nd, 4th, 8th, … time, so that neither strangers nor members can fill a log. `count`:
 * how often it has happened. Pure.
 */
export function sparingly<T>(tell: (what: T, count: number) => void): (what: T) => void {
  let count = 0
  let next = 1
  return what => {
    count++
    if (count < next) return
    next *= 2
    tell(what, count)
  }
}

/** Each key by itself, so that who makes much of it hides nobody else. Keys are few, as members are. */
export function sparinglyEach<K, T>(tell: (key: K, what: T, count: number) => void): (key: K, what: T) => void {
  const known = new Map<K, (what: T) => void>()
  return (key, what) => {
    const of = known.get(key) ?? sparingly<T>((each, count) => tell(key, each, count))
    known.set(key, of)
    of(what)
  }
}
