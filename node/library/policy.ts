/**
 * What a policy of one's own is made of, and what tries one on recorded epochs: `import type { Policy } from 'diapause/policy'`. A
 * module of `[policies]` in a peer's config exports it as `next`.
 */
export { dueEvery } from '../planning/policies/policy.ts'
export type { Policy, PolicyNext, PolicyNow } from '../planning/policies/policy.ts'
export { simulatePolicy } from '../planning/policies/simulate.ts'
export type { SeenCut, SeenEpoch } from '../../protocols/epoch/history.ts'
export type { PolicyOutcome, SimulatedPolicy } from '../../protocols/epoch/policy-outcome.ts'
