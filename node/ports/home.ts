/** The second home of a group's epochs: a bucket or a directory outside of the cluster. */

/**
 * Where objects lie: names of folders and a last part, of letters, digits, `_`, `.` and `-`, with `/` between. An object is
 * whole or not there. HOME_UNREACHABLE where nobody answers, HOME_REFUSED where the credentials do not suffice, HOME_FULL.
 */
export interface ObjectStore {
  /** For people: what of it a config says, without credentials. */
  readonly url: string
  /** Durable when it resolves; in the place of one of that name. */
  put(name: string, bytes: Uint8Array): Promise<void>
  /** HOME_MISSING. There are no parts to ask for: what is read is checked by a hash of all of it. */
  get(name: string): Promise<Uint8Array>
  /** Undefined where it is not there. */
  stat(name: string): Promise<StoredFacts | undefined>
  /** All whose names begin with `prefix`, in no order. Those that come or go meanwhile may be among them or not. */
  list(prefix: string): AsyncIterable<StoredFacts & { readonly name: string }>
  /** Also where it is not there. */
  delete(name: string): Promise<void>
}

export interface StoredFacts {
  readonly bytes: number
  /** When it was put, by the wall clock of whoever stores it: in whole seconds at some. */
  readonly putMs: number
}
