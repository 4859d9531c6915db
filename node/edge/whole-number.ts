import { UsageError } from '../errors.ts'

/** A whole number of the command line, as it was typed. UsageError CLI_NUMBER. */
export function wholeNumber(text: string): number {
  if (/^\d{1,15}$/.test(text)) return Number(text)
  throw new UsageError('CLI_NUMBER', `${JSON.stringify(text)} is not a whole number`)
}
