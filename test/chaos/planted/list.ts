/** All planted mistakes, by name. */
import { EPOCH_MISTAKES } from './epochs.ts'
import { OWNER_MISTAKES } from './owners.ts'
import type { Mistake } from './mistake.ts'
import { STORE_MISTAKES } from './stores.ts'

const list: readonly Mistake[] = [...STORE_MISTAKES, ...EPOCH_MISTAKES, ...OWNER_MISTAKES]

export const MISTAKES: ReadonlyMap<string, Mistake> = new Map(list.map(mistake => [mistake.name, mistake]))
