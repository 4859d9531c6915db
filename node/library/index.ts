/**
 * A peer of a cluster, for programs: `import { ApiClient } from 'diapause'`. What it answers is typed as the command line and the
 * dashboard have it; errors have a stable `code`.
 */
export { ApiClient } from '../edge/client.ts'
export type { RemotePeer } from '../edge/client-connection.ts'
export { DiapauseError, hasCode, UsageError } from '../errors.ts'
export type { Definition } from '../../config/definition.ts'
export type { ApiRole } from '../../protocols/membership/api-tokens.ts'
export type { GroupRecord, VmSpec } from '../../protocols/group.ts'
export type { ClusterStatus, KeysStatus } from '../edge/cluster-view.ts'
export type { EpochStatus, GroupEpochs } from '../edge/epoch-view.ts'
export type { PeerEvent } from '../edge/events.ts'
export type { HomeStatus } from '../edge/home-view.ts'
export type { GroupPlan } from '../edge/plan-view.ts'
export type { Asker, MadeToken, TokenStatus } from '../edge/token-view.ts'
export type { EpochResult, GroupStatus, MemberStatus, PeerStatus } from '../edge/view.ts'
