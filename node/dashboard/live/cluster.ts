/** What most of the page shows: the overview, and what members are called. */
import type { Overview } from '../../edge/overview-view.ts'
import { shortId } from '../model/text.ts'
import { get } from './http.ts'
import { type Read, useRead } from './resource.ts'

/** Events make it read at once; this is for what makes none, such as ages of epochs and free space. A guess. */
const EVERY_MS = 3_000

export const useOverview = (): Read<Overview> => useRead<Overview>('/v1/overview', EVERY_MS, load)

const order = new Intl.Collator('en', { numeric: true })

/** Each in the order in which a person looks for it: p2 before p10. */
async function load(): Promise<Overview> {
  const overview = await get<Overview>('/v1/overview')
  return {
    ...overview,
    members: overview.members.toSorted((a, b) => order.compare(a.name, b.name)),
    groups: overview.groups.toSorted((a, b) => order.compare(a.id, b.id)),
    vms: overview.vms.toSorted((a, b) => order.compare(a.group, b.group) || order.compare(a.vm, b.vm))
  }
}

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
