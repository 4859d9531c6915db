/** Light or dark: as the system says, unless somebody chose for this browser. */
import { valueOf } from './store.ts'

export type Theme = 'system' | 'light' | 'dark'

const KEY = 'diapause.theme'
const themes: readonly Theme[] = ['system', 'light', 'dark']

export const theme = valueOf<Theme>('system')

export function beginTheme(): void {
  const kept = localStorage.getItem(KEY)
  setTheme(themes.find(name => name === kept) ?? 'system')
}

export function setTheme(name: Theme): void {
  localStorage.setItem(KEY, name)
  document.documentElement.dataset['theme'] = name
  theme.set(name)
}

export const nextTheme = (): void => setTheme(themes[(themes.indexOf(theme.get()) + 1) % themes.length] ?? 'system')

/** The colours of the style sheet as they are now, for what is painted on a canvas. */
export const colour = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim()
