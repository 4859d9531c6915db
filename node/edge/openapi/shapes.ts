/**
 * What each row of the API's table is sent and answers, in zod: `describe.ts` makes JSON Schema of it. Apart from the table, since a
 * peer needs them only when somebody asks for the description. A shape of an answer is checked by the compiler to take whatever
 * the type of its view may be; a test sees to it that every row has one.
 */
import { z } from 'zod'
import { definitionSchema } from '../../../config/definition.ts'
import { policySchema } from '../../../config/policy.ts'
import { groupRecordSchema } from '../../../protocols/epoch/messages.ts'
import { holdSchema, policySchema as retentionWishSchema, restoreSchema as backSchema } from '../epoch-view.ts'
import { inviteSchema, leaveSchema, wishSchema as memberWishSchema } from '../member-request.ts'
import { scheduleSchema, wishSchema as drillWishSchema } from '../drill-view.ts'
import { placeSchema, pushSchema, recoverySchema, restoreSchema, verifySchema } from '../home-view.ts'
import { logWishSchema } from '../log-view.ts'
import { notifyTestSchema } from '../notification-view.ts'
import { startSchema, stopSchema } from '../rest-view.ts'
import { tokenWishSchema } from '../token-view.ts'
import * as answers from './answers.ts'
import * as reads from './answers-reads.ts'

export interface Shape {
  /** Names of query parameters, and what they are. All are texts and none must be there. */
  readonly query?: Readonly<Record<string, string>>
  readonly body?: z.ZodType | Stream
  /** Of success. Absent: 200. */
  readonly status?: number
  /** Absent: nothing. */
  readonly answer?: z.ZodType | Stream
}

/** No one JSON value: `lines`, each a JSON value, or something else. */
export interface Stream {
  readonly type: string
  readonly text: string
  readonly lines?: z.ZodType
}

const lines = (text: string, schema: z.ZodType): Stream => ({ type: 'application/x-ndjson', text, lines: schema })
const records: Stream = { type: 'application/octet-stream', text: 'records of image-records.ts' }
const done: Shape = { status: 204 }
const consoleTextSchema = z.strictObject({ text: z.string().max(4_096) })

const events: Stream = {
  type: 'application/x-ndjson',
  text: 'an event a line; server-sent events, each with an id, for who accepts text/event-stream',
  lines: answers.event
}

/** By method and path, as in the table. */
export const shapes: Readonly<Record<string, Shape>> = {
  'GET /v1/openapi.json': { answer: z.object({ openapi: z.string() }) },
  'GET /v1/whoami': { answer: answers.asker },
  'GET /v1/tokens': { answer: z.array(answers.token) },
  'POST /v1/tokens': { body: tokenWishSchema, status: 201, answer: answers.madeToken },
  'DELETE /v1/tokens/{token}': done,
  'GET /v1/status': { answer: answers.status },
  'GET /metrics': { answer: { type: 'text/plain', text: "Prometheus' text format" } },
  'GET /v1/events': {
    query: { follow: '1: go on with those to come', cluster: '1: of all peers' },
    answer: events
  },
  'GET /v1/groups': { answer: z.array(groupRecordSchema) },
  'POST /v1/groups': { body: definitionSchema, status: 201, answer: groupRecordSchema },
  'DELETE /v1/groups/{group}': done,
  'POST /v1/groups/{group}/epochs': { answer: answers.epochResult },
  'GET /v1/groups/{group}/epochs': { answer: answers.groupEpochs },
  'DELETE /v1/groups/{group}/epochs/{epoch}': done,
  'POST /v1/groups/{group}/epochs/{epoch}/holds': { body: holdSchema, status: 204 },
  'DELETE /v1/groups/{group}/epochs/{epoch}/holds': { query: { name: 'only this name' }, status: 204 },
  'PATCH /v1/groups/{group}/retention': { body: retentionWishSchema, status: 204 },
  'POST /v1/groups/{group}/restore': { body: backSchema, answer: groupRecordSchema },
  'POST /v1/groups/{group}/stop': { body: stopSchema, answer: groupRecordSchema },
  'POST /v1/groups/{group}/start': { body: startSchema, answer: groupRecordSchema },
  'POST /v1/groups/{group}/drill': {
    body: drillWishSchema,
    answer: lines('how far it is, and at last a report or an error', answers.workLine)
  },
  'PUT /v1/groups/{group}/drills': { body: scheduleSchema, answer: groupRecordSchema },
  'DELETE /v1/groups/{group}/drills': { answer: groupRecordSchema },
  'GET /v1/groups/{group}/policy': { answer: answers.groupPolicy },
  'PUT /v1/groups/{group}/policy': { body: policySchema, answer: groupRecordSchema },
  'DELETE /v1/groups/{group}/policy': { answer: groupRecordSchema },
  'POST /v1/groups/{group}/policy/simulate': { body: policySchema, answer: answers.simulation },
  'GET /v1/groups/{group}/vms/{vm}/console': {
    query: { history: 'bytes of what it said before', follow: '1: go on with what it says' },
    answer: lines('whose console it is, notes, and what the VM said in base64', answers.consoleLine)
  },
  'POST /v1/groups/{group}/vms/{vm}/console': { body: consoleTextSchema, status: 204 },
  'GET /v1/groups/{group}/vms/{vm}/why': {
    query: { agoMs: 'how far back', here: '1: by this peer alone' },
    answer: answers.story
  },
  'GET /v1/groups/{group}/vms/{vm}/image': { query: { epoch: 'of this epoch' }, answer: records },
  'POST /v1/images': { body: records, status: 201, answer: groupRecordSchema },
  'GET /v1/members': { answer: answers.clusterStatus },
  'PATCH /v1/members/{member}': { body: memberWishSchema, status: 204 },
  'DELETE /v1/members/{member}': { query: { force: '1: although it owns VMs' }, status: 204 },
  'POST /v1/invites': { body: inviteSchema, status: 201, answer: answers.invitation },
  'DELETE /v1/invites/{invite}': { status: 204 },
  'GET /v1/keys': { answer: answers.keys },
  'POST /v1/keys': { status: 201, answer: answers.keys },
  'POST /v1/leave': { body: leaveSchema, status: 204 },
  'GET /v1/home': { answer: answers.homeStatus },
  'POST /v1/home/push': { body: pushSchema, answer: answers.homeCopied },
  'POST /v1/home/list': { body: placeSchema, answer: answers.homeListing },
  'POST /v1/home/verify': { body: verifySchema, answer: answers.homeCheck },
  'POST /v1/home/restore': { body: restoreSchema, status: 201, answer: z.array(answers.homeEpoch) },
  'PUT /v1/recovery-key': { body: recoverySchema, answer: answers.recovery },
  'GET /v1/log': { answer: answers.log },
  'PUT /v1/log': { body: logWishSchema, answer: answers.log },
  'DELETE /v1/log': { answer: answers.log },
  'GET /v1/notifications': { answer: z.array(answers.target) },
  'POST /v1/notifications/test': { body: notifyTestSchema, answer: z.array(answers.targetTest) },
  'GET /v1/plan': { query: { group: 'only this group', host: 'if this host died' }, answer: z.array(reads.plan) },
  'GET /v1/overview': { answer: reads.overview },
  'GET /v1/groups/{group}/history': {
    query: { before: 'GENERATION.EPOCH: only older ones', limit: 'at most so many' },
    answer: reads.history
  },
  'GET /v1/groups/{group}/epochs/{epoch}/grid': { answer: reads.grid },
  'GET /v1/groups/{group}/graph': { answer: reads.graph },
  'GET /v1/decisions': { query: { agoMs: 'how far back', limit: 'at most so many' }, answer: reads.decisions },
  'POST /v1/verify': {
    query: { name: 'only this group, or VMs of this name', deep: '1: read all of it' },
    answer: lines('how far it is, and at last a report or an error', answers.workLine)
  },
  'POST /v1/repair': { answer: lines('how far it is, and at last a report or an error', answers.workLine) }
}
