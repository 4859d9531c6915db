/** Where one is in the page: the address's fragment, '#/groups/bank/epochs/17' as ['groups', 'bank', 'epochs', '17']. */
import { valueOf } from './store.ts'

export type Route = readonly string[]

export const route = valueOf<Route>([])

export const hrefOf = (...parts: readonly (string | number)[]): string =>
  `#/${parts.map(part => encodeURIComponent(String(part))).join('/')}`

export const goTo = (...parts: readonly (string | number)[]): void => {
  location.hash = hrefOf(...parts)
}

export function beginRoute(): void {
  const take = (): void => {
    const parts = location.hash.replace(/^#\/?/, '').split('/')
    route.set(parts.filter(part => part !== '').map(decoded))
  }
  addEventListener('hashchange', take)
  take()
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part // somebody typed it so
  }
}
