/**
 * Who is looking: the token, taken from the address's fragment (#token=…, which a browser sends to nobody), kept for this
 * tab only, and what its role may do.
 */
import { valueOf } from './store.ts'

export type Role = 'view' | 'operate' | 'admin'

/** `role` null: not known yet. `refused`: why the token did not do. */
export interface Session {
  readonly token: string | null
  readonly name: string
  readonly role: Role | null
  readonly refused?: string | undefined
}

const KEY = 'diapause.token'
const none: Session = { token: null, name: '', role: null }

export const session = valueOf<Session>(none)

/** Before anything is shown: the token must not stay in the address, where somebody may copy it from. */
export function beginSession(): void {
  // Also later: a link that is opened in a tab that has the page already.
  addEventListener('hashchange', takeToken)
  if (takeToken()) return
  const kept = sessionStorage.getItem(KEY)
  if (kept !== null) session.set({ ...none, token: kept })
}

function takeToken(): boolean {
  const given = /^#token=([A-Za-z0-9._~-]+)$/.exec(location.hash)?.[1]
  if (given === undefined) return false
  history.replaceState(null, '', `${location.pathname}${location.search}#/`)
  signIn(given)
  return true
}

export function signIn(token: string): void {
  sessionStorage.setItem(KEY, token)
  session.set({ ...none, token })
}

export function signOut(refused?: string): void {
  sessionStorage.removeItem(KEY)
  session.set({ ...none, refused })
}

const ranks: Readonly<Record<Role, number>> = { view: 0, operate: 1, admin: 2 }

/** A role that is not known yet may only look. */
export const mayDo = ({ role }: Session, needed: Role): boolean => ranks[role ?? 'view'] >= ranks[needed]
