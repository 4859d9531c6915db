/** Answers of the API, as zod has them. `of` lets the compiler compare one with the type of what is answered. */
import { z } from 'zod'
import { policySchema } from '../../../config/policy.ts'
import type { Story } from '../../../protocols/decisions/merge.ts'
import { groupRecordSchema } from '../../../protocols/epoch/messages.ts'
import { API_ROLES } from '../../../protocols/membership/api-tokens.ts'
import type { HomeCheck, HomeEpoch, HomeListing } from '../../ports.ts'
import type { ErrorOfApi } from '../api-error.ts'
import type { ClusterStatus, Invitation, KeysStatus } from '../cluster-view.ts'
import type { ConsoleLine } from '../console-view.ts'
import type { GroupEpochs } from '../epoch-view.ts'
import type { PeerEvent } from '../events.ts'
import type { HomeCopied, HomeStatus, RecoveryStatus } from '../home-view.ts'
import { logLevelSchema, type LogStatus } from '../log-view.ts'
import type { TargetStatus, TargetTest } from '../notification-view.ts'
import type { GroupPolicy, PolicySimulation } from '../policy-view.ts'
import type { Asker, MadeToken, TokenStatus } from '../token-view.ts'
import type { EpochResult, PeerStatus } from '../view.ts'

type Mutable<T> = T extends readonly (infer E)[]
  ? Mutable<E>[]
  : T extends object
    ? { -readonly [Name in keyof T]: Mutable<T[Name]> }
    : T

/** A schema that takes every T: another does not compile. */
export const of =
  <T>() =>
  <S extends z.ZodType>(schema: Mutable<T> extends z.input<S> ? S : never): S =>
    schema

const text = z.string()
const number = z.number()
const flag = z.boolean()
const texts = z.array(text)
const roles = z.enum(['storage', 'witness'])
const apiRole = z.enum(API_ROLES)
export const silent = z.array(z.object({ peer: text, why: text }))
export const liveness = z.enum(['alive', 'suspect', 'dead'])
export const labels = z.object({ host: text.optional(), rack: text.optional(), site: text.optional() })
const capture = z.object({ mode: z.enum(['dirty', 'portable']), why: text.optional() })

const errorFields = { code: text, message: text, todo: text.optional() }
export const error = z.object({
  error: of<ErrorOfApi>()(z.object({ ...errorFields, details: z.record(text, z.unknown()).optional() }))
})

export const asker = of<Asker>()(z.object({ name: text, role: apiRole, expiresMs: number.optional() }))
const tokenFields = { name: text, role: apiRole, expiresMs: number.optional() }
export const token = of<TokenStatus>()(z.object({ ...tokenFields, madeMs: number, expired: flag }))
export const madeToken = of<MadeToken>()(z.object({ ...tokenFields, token: text }))
export const log = of<LogStatus>()(z.object({ level: logLevelSchema, configured: logLevelSchema }))
export const event = of<PeerEvent>()(z.object({ atMs: number, kind: text }))

const memberFields = {
  name: text,
  id: text,
  address: text,
  role: roles,
  votes: flag,
  liveness,
  connected: flag,
  labels: labels.optional(),
  freeBytes: number.optional()
}
export const code = z.object({
  k: number,
  m: number,
  storage: number,
  live: number.optional(),
  tolerates: number,
  domains: z.array(z.object({ level: z.enum(['site', 'rack', 'host']), tolerates: number, alone: texts }))
})

export const obstacle = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('no-majority'), live: number, voters: number }),
  z.object({ kind: z.literal('columns'), vm: text, left: number, columns: number, needs: number }),
  z.object({ kind: z.literal('no-room') })
])

export const outlook = z.object({
  backMs: number.nullable(),
  never: z.literal(true).optional(),
  why: obstacle.optional(),
  parts: z.object({ detectMs: number.nullable(), decideMs: number.nullable(), runsMs: number.nullable() }),
  bySettings: texts,
  lossMs: number,
  missed: z.array(z.enum(['backMs', 'lossMs']))
})

export const status = of<PeerStatus>()(
  z.object({
    name: text,
    id: text,
    version: text,
    cluster: text,
    removed: z.object({ cluster: text, by: text }).optional(),
    pid: number,
    uptimeMs: number,
    hypervisor: text,
    capture: capture.nullable(),
    members: z.array(z.object(memberFields)),
    code,
    groups: z.array(
      z.object({
        record: groupRecordSchema,
        running: texts,
        captures: z.record(text, capture),
        leaseRemainingMs: number,
        outlooks: z.record(text, outlook).optional()
      })
    ),
    refused: z.object({ frames: number, reports: number, shards: number, claims: number, changes: number }),
    store: z.object({ streams: number, manifests: number, bytes: number })
  })
)

export const epochResult = of<EpochResult>()(
  z.object({ epoch: number, outcome: z.enum(['committed', 'aborted']), reason: text.optional() })
)

export const groupEpochs = of<GroupEpochs>()(
  z.object({
    group: text,
    policy: z.object({ keepLast: number, hourly: number, daily: number, weekly: number }),
    own: flag,
    room: number,
    epochs: z.array(
      z.object({
        epoch: number,
        generation: number,
        committed: flag,
        wallMs: number.optional(),
        bytesStored: number.optional(),
        holds: texts,
        readers: number
      })
    )
  })
)

const costs = z.object({ epochs: number, intervalMs: number, pauseMs: number, overhead: number, availability: number })
export const groupPolicy = of<GroupPolicy>()(
  z.object({
    group: text,
    policy: policySchema.nullable(),
    text,
    own: flag,
    keeper: text,
    nowMs: number,
    next: z.object({ atMs: number, why: text }).nullable(),
    failed: text.optional(),
    costs: costs.nullable()
  })
)
export const simulation = of<PolicySimulation>()(z.object({ group: text, text, why: text }))

/** As a stream of lines ends: with a report or an error. */
export const workLine = z.union([
  z.object({ progress: z.object({ text, done: number.optional(), total: number.optional() }) }),
  z.object({ report: z.record(text, z.unknown()) }),
  z.object({ error: of<ErrorOfApi>()(z.object(errorFields)) })
])
export const consoleLine = of<ConsoleLine>()(
  z.union([z.object({ host: text }), z.object({ note: text }), z.object({ data: text })])
)

export const story = of<Story>()(
  z.object({
    group: text,
    vm: text,
    by: text,
    nowMs: number,
    names: z.record(text, text),
    told: z.array(z.object({ by: text, seq: number, atMs: number })),
    tellers: z.array(z.object({ peer: text, left: number, aheadMs: number })),
    silent
  })
)

export const clusterStatus = of<ClusterStatus>()(
  z.object({
    id: text,
    name: text,
    version: number,
    voters: z.object({ version: number, settled: flag, count: number, live: number.optional(), tolerates: number }),
    code,
    members: z.array(
      z.object({ ...memberFields, self: flag, wantsVote: flag, leaving: flag, replaces: text.optional() })
    ),
    invites: z.array(
      z.object({ id: text.optional(), role: roles, votes: flag, expiresMs: number, usedBy: text.optional() })
    ),
    waits: z.array(z.object({ member: text, why: text }))
  })
)
export const invitation = of<Invitation>()(z.object({ token: text, expiresMs: number }))
export const keys = of<KeysStatus>()(
  z.object({
    cluster: text,
    opens: flag,
    keys: z.array(z.object({ id: number, madeMs: number.optional(), by: text.optional(), streams: number.optional() })),
    holders: texts,
    lacking: texts
  })
)

export const recovery = of<RecoveryStatus>()(z.object({ name: text, madeMs: number }))
const copied = z.object({
  epoch: number,
  generation: number,
  streams: number,
  streamsCopied: number,
  bytesSent: number,
  without: texts
})
export const homeCopied = of<HomeCopied>()(copied)
export const homeStatus = of<HomeStatus>()(
  z.object({
    url: text.nullable(),
    recovery: recovery.nullable(),
    groups: z.array(
      z.object({
        group: text,
        copier: text,
        here: flag,
        copying: z.object({ epoch: number, doneBytes: number, allBytes: number }).optional(),
        last: copied.extend({ atMs: number }).optional(),
        failed: z.object({ atMs: number, code: text, message: text }).optional()
      })
    )
  })
)
const epochName = { cluster: text, group: text, generation: number, epoch: number }
export const homeEpoch = of<HomeEpoch>()(
  z.object({
    ...epochName,
    clusterName: text,
    copiedMs: number,
    recovery: text,
    vms: texts,
    streams: number,
    bytes: number
  })
)
export const homeListing = of<HomeListing>()(
  z.object({ epochs: z.array(homeEpoch), damaged: z.array(z.object({ ...epochName, name: text })), others: texts })
)
export const homeCheck = of<HomeCheck & { readonly of: HomeEpoch }>()(
  z.object({ streams: number, chunks: number, bytes: number, damaged: texts, of: homeEpoch })
)

export const target = of<TargetStatus>()(
  z.object({
    name: text,
    way: z.enum(['webhook', 'command']),
    on: texts,
    teller: text,
    waiting: number,
    last: z.object({ atMs: number, notices: number, failed: text.optional() }).nullable()
  })
)
export const targetTest = of<TargetTest>()(z.object({ name: text, tookMs: number, failed: text.optional() }))
