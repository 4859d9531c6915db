/** The planners that peers use, pure: facts in, a plan out. `import { placeVms } from 'diapause/planning'`. */
export { enduranceOf } from '../planning/endurance.ts'
export { placeVms } from '../planning/placement.ts'
export type { PartialPlacement, PlacementFacts } from '../planning/placement.ts'
export { planRestoreLine } from '../planning/restore-line.ts'
export type { LineFacts, RestoreLine } from '../planning/restore-line.ts'
export type { StoragePeer } from '../planning/domains.ts'
