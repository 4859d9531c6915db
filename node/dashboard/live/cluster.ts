/** What most of the page shows: the overview, and what members are called. */
import type { Overview } from '../../edge/overview-view.ts'
import { shortId } from '../model/text.ts'
import { type Read, useRead } from './resource.ts'

/** Events make it read at once; this is for what makes none, such as ages of epochs and free space. A guess. */
const EVERY_MS = 3_000

export const useOverview = (): Read<Overview> => useRead<Overview>('/v1/overview', EVERY_MS)

/** A member's name by its id. */
export function useNames(): (id: string) => string {
  const { data } = useOverview()
  return namesOf(data)
}

export function namesOf(overview: Overview | undefined): (id: string) => string {
  const names = new Map(overview?.members.map(({ id, name }) => [id, name]))
  return id => names.get(id) ?? shortId(id)
}

/** How far the peer's clock, by which all times are told, is ahead of this browser's; half of a request's time is its error. */
export const aheadOf = ({ data, atMs }: Read<{ readonly nowMs: number }>): number =>
  data === undefined ? 0 : data.nowMs - atMs
