/**
 * The ports of a peer: what its agents need from the world, and no more. Adapters implement them, `peer.ts` joins them,
 * agents and tests know only these types. Byte arguments are the callee's to read until its promise settles; byte
 * results are the caller's to keep. Times are milliseconds. Every failure is a `DiapauseError` with a stable code.
 */
export type * from './ports/world.ts'
export type * from './ports/transport.ts'
export type * from './ports/registers.ts'
export type * from './ports/store.ts'
export type * from './ports/machines.ts'
export type * from './ports/network.ts'
export type * from './ports/members.ts'
export type * from './ports/images.ts'
export type * from './ports/blocks.ts'
export type * from './ports/home.ts'
export type * from './ports/boot-files.ts'
export type * from './ports/drills.ts'
export type * from './ports/finding.ts'
export type * from './ports/history.ts'
export type * from './ports/policies.ts'
export type * from './ports/notifications.ts'
export type * from './ports/traces.ts'
