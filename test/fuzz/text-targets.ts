/** What people and QEMU write as text, tokens and join messages, and what is read back from this host's own disk. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseConfig } from '../../config/parse.ts'
import { encodeRecord, type ImageRecord, RecordReader } from '../../node/edge/image-records.ts'
import { parseImportWish } from '../../node/edge/image-view.ts'
import { definitionToRequest, parseGroupRequest } from '../../node/edge/group-request.ts'
import { AgentLines, isSynced, replyOf } from '../../node/hypervisor/guest-agent-protocol.ts'
import { parseQemuVersion } from '../../node/hypervisor/qemu.ts'
import { LineSplitter, parseQmpLine } from '../../node/hypervisor/qmp-protocol.ts'
import {
  encodeRecordHead,
  encodeSegmentHeader,
  parseRecordHeader,
  parseSegmentHeader,
  streamHash
} from '../../node/store/record.ts'
import { baseStream, parseBaseRecord } from '../../protocols/base.ts'
import type { Random } from '../../protocols/core.ts'
import {
  encodeJoinReply,
  encodeJoinRequest,
  parseJoinReply,
  parseJoinRequest
} from '../../protocols/membership/join.ts'
import { decodeToken, encodeToken } from '../../protocols/membership/token.ts'
import { parseStreamName } from '../../protocols/shards/generations.ts'
import { forgottenEntry, recordEntry, remember, reservedEntry, votersEntry } from '../../protocols/register/record.ts'
import { accepted, baseRecords, clusterRecord, PEER, vm } from './message-seeds.ts'
import { mutate, mutateValue } from './mutate.ts'
import { attempt, inAnyChunks, type Target } from './target.ts'

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))
const textOf = (input: Uint8Array): string => Buffer.from(input).toString('utf8')

// ---------------------------------------------------------------------------------------------- QMP

const QMP = [
  { QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 } }, capabilities: [] } },
  { return: { status: 'running', running: true }, id: 3 },
  { error: { class: 'GenericError', desc: 'what was wrong' }, id: 4 },
  { timestamp: { seconds: 1, microseconds: 2 }, event: 'MIGRATION', data: { status: 'active' } }
]
const LINE_LIMIT_BYTES = 300

/** Lines of a guest's agent, as answers to one command. */
const agent = (input: Uint8Array, random: Random): string | undefined =>
  inAnyChunks(/^GUEST_AGENT_(REFUSED|MALFORMED)$/, { input, random }, chunks => {
    const reader = new AgentLines()
    const lines = chunks.flatMap(chunk => {
      const found = reader.push(chunk)
      chunk.fill(0xa5) // a view that was kept longer than allowed would show
      return found
    })
    return JSON.stringify(lines.map(line => (isSynced(line, 1) ? 'synced' : replyOf(line, 'guest-exec'))))
  })

const qmp = (input: Uint8Array, random: Random): string | undefined =>
  inAnyChunks(/^QMP_(LINE_TOO_LONG|MALFORMED)$/, { input, random, reasons: false }, chunks => {
    const splitter = new LineSplitter(LINE_LIMIT_BYTES)
    const lines = chunks.flatMap(chunk => splitter.push(chunk))
    assert.ok(lines.every(line => line.length <= LINE_LIMIT_BYTES))
    return JSON.stringify(lines.map(parseQmpLine))
  })

// ---------------------------------------------------------------------------------------------- TOML

const EXAMPLES = join(import.meta.dirname, '../../config/examples')
const configSeeds = (): Uint8Array[] =>
  readdirSync(EXAMPLES).map(name => new Uint8Array(readFileSync(join(EXAMPLES, name))))

function config(input: Uint8Array): string | undefined {
  const parsed = parseConfig(textOf(input))
  if (parsed.ok) return undefined
  assert.ok(parsed.problems.length > 0 && parsed.problems.every(({ key, expected }) => key !== '' && expected !== ''))
  return 'problems'
}

const GROUP = `# a comment
id: shop
outputCommit: true
vms:
  - &till
    id: till
    nics: [{ mac: "52:54:00:00:00:01", network: lan }, { mac: "52:54:00:00:00:02", network: uplink }]
    memoryMiB: 64
    kernel: /boot/kernel
    initrd: /boot/initrd
    append: ''
owners: { till: one }
`
const MEMBER = {
  id: PEER,
  name: 'one',
  address: '/ip4/127.0.0.1/tcp/7401',
  role: 'storage',
  liveness: 'alive',
  connected: true,
  votes: true
} as const

/** As a file, and as the API gets it: a value. */
function groupRequest(input: Uint8Array, random: Random): string | undefined {
  return attempt(/^GROUP_INVALID$/, () => {
    const request = definitionToRequest(textOf(input))
    return parseGroupRequest(random() < 0.5 ? mutateValue(request, random) : request, [MEMBER])
  })
}

// ---------------------------------------------------------------------------------------------- joining

const TOKEN = encodeToken({
  cluster: { id: clusterRecord.id, name: 'home' },
  seed: new Uint8Array(32).fill(3),
  expiresMs: 5,
  members: [{ id: PEER, address: MEMBER.address }]
})
/** Half of the time with the right checksum behind what was changed: as somebody would who makes one. */
function mutateToken(input: Uint8Array, random: Random): Uint8Array {
  if (random() < 0.5) return mutate(input, random)
  const body = mutate(Buffer.from(textOf(input), 'base64url').subarray(0, -4), random)
  const check = createHash('sha256').update(body).digest().subarray(0, 4)
  return bytes(Buffer.concat([body, check]).toString('base64url'))
}

const request = {
  cluster: clusterRecord.id,
  id: PEER,
  name: 'one',
  address: MEMBER.address,
  signature: new Uint8Array(64)
}

const joinSeeds = (): Uint8Array[] =>
  [
    encodeJoinRequest(request),
    encodeJoinReply({
      kind: 'welcome',
      record: clusterRecord,
      secret: new Uint8Array(32),
      settings: { shards: { k: 3 } }
    }),
    encodeJoinReply({ kind: 'refused', code: 'JOIN_USED', message: 'why' })
  ].map(each => Uint8Array.from(each))

function joining(input: Uint8Array): string | undefined {
  const asked = attempt(/^JOIN_MESSAGE$/, () => parseJoinRequest(input))
  return asked === undefined ? undefined : attempt(/^JOIN_MESSAGE$/, () => parseJoinReply(input))
}

// ---------------------------------------------------------------------------------------------- this host's disk

const ballot = accepted.ballot
const ENTRIES = [
  recordEntry('group/bank', { term: 1, promised: ballot, accepted }),
  votersEntry(clusterRecord.voters),
  forgottenEntry(ballot),
  reservedEntry(9)
]

/** The first byte of `input` says which entry the others are of. */
function registerRecord(input: Uint8Array): string | undefined {
  const [name] = ENTRIES[(input[0] ?? 0) % ENTRIES.length] as (typeof ENTRIES)[number]
  return attempt(/^REGISTER_(FORMAT|CORRUPT)$/, () => remember([[name, input.subarray(1)]], PEER))
}

const registerSeeds = (): Uint8Array[] =>
  ENTRIES.map(([, entry], at) => Uint8Array.from(Buffer.concat([Buffer.of(at), entry ?? Buffer.of()])))

const SEGMENT = { stream: 'bank/vm1/2/5', grid: 3, column: 2 }

function segment(input: Uint8Array): string | undefined {
  const file = Buffer.from(input)
  const header = parseSegmentHeader(file)
  if (header === undefined || header === 'version') return header ?? 'no segment'
  assert.ok(header.end <= file.length)
  return parseRecordHeader(file.subarray(header.end), streamHash(header.stream)) === undefined ? 'no record' : undefined
}

function segmentSeed(): Uint8Array {
  const payload = new Uint8Array(200).fill(1)
  const { head } = encodeRecordHead({ ...SEGMENT, streamHash: streamHash(SEGMENT.stream) }, payload)
  return Uint8Array.from(Buffer.concat([encodeSegmentHeader(SEGMENT.stream), head, payload]))
}

// ---------------------------------------------------------------------------------------------- images as files

const IMPORT: readonly ImageRecord[] = [
  {
    kind: 'about',
    value: {
      group: 'g',
      about: { group: 'g', epoch: 3, generation: 1, accel: 'tcg', machine: 'pc', hypervisor: 'QEMU', spec: vm }
    }
  },
  { kind: 'file', value: { name: 'ram.migration' } },
  { kind: 'data', bytes: bytes('QEVM') },
  { kind: 'end' }
]

/** What is read of them is what they are written as, up to the JSON; a wish among them is taken or refused. */
const records = (input: Uint8Array, random: Random): string | undefined =>
  inAnyChunks(/^(IMAGE_RECORDS|IMPORT_INVALID)$/, { input, random, reasons: false }, chunks => {
    const reader = new RecordReader()
    const found = chunks.flatMap(chunk =>
      reader.push(chunk).map(record => {
        if (record.kind === 'about') parseImportWish(record.value)
        return Buffer.concat(encodeRecord(record)).toString('hex')
      })
    )
    return found.join(' ')
  })

// ---------------------------------------------------------------------------------------------- bases

/** The value of a register, as JSON. */
function baseRecord(input: Uint8Array): string | undefined {
  let value: unknown
  try {
    value = JSON.parse(textOf(input))
  } catch {
    return 'no JSON'
  }
  const record = parseBaseRecord(value)
  if (record === undefined) return 'refused'
  assert.deepEqual(parseBaseRecord(structuredClone(record)), record)
  assert.ok(parseStreamName(baseStream('f'.repeat(64), record.nonce)) !== undefined)
  return undefined
}

export const textTargets: readonly Target[] = [
  {
    name: 'base-record',
    group: 'texts',
    summary: "a base's register",
    seeds: () => baseRecords.map(record => bytes(JSON.stringify(record))),
    mutate: (input, random, seeds) =>
      random() < 0.2
        ? mutate(input, random, seeds)
        : bytes(JSON.stringify(mutateValue(JSON.parse(textOf(input)), random))),
    run: baseRecord
  },
  {
    name: 'image-records',
    group: 'texts',
    summary: 'an image on its way between a peer and the command line, in any chunks',
    seeds: () => [new Uint8Array(Buffer.concat(IMPORT.flatMap(encodeRecord)))],
    run: records
  },
  {
    name: 'guest-agent',
    group: 'texts',
    summary: 'what the agent in a guest says',
    seeds: () => [
      Buffer.from('{"return": {"half\xff{"return": 1}\n{"return": {"pid": 812}}\n', 'latin1'),
      Buffer.from('{"error": {"class": "GenericError", "desc": "hwclock failed"}}\n{"return": {"exited": false}}\r\n')
    ],
    run: agent
  },
  {
    name: 'qmp',
    group: 'texts',
    summary: 'what QEMU says on its monitor, in any chunks',
    seeds: () => [bytes(QMP.map(message => `${JSON.stringify(message)}\r\n`).join(''))],
    run: qmp
  },
  {
    name: 'qemu-version',
    group: 'texts',
    summary: 'what a program that is named as QEMU says of its version',
    seeds: () => [
      bytes('QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright (c)'),
      bytes('QEMU emulator version 6.0')
    ],
    run: input => attempt(/^QEMU_(UNKNOWN|TOO_OLD)$/, () => parseQemuVersion(textOf(input), 'qemu'))
  },
  { name: 'config', group: 'texts', summary: "a peer's settings", seeds: configSeeds, run: config },
  {
    name: 'group-request',
    group: 'texts',
    summary: 'a group, as a file and as the API gets it',
    seeds: () => [bytes(GROUP), bytes(GROUP.replace(/nics.*/, `mac: "${vm.nics[0]?.mac}"`))],
    // What is left whole has a value in it changed as it is run.
    mutate: (input, random) => (random() < 0.5 ? input : mutate(input, random)),
    run: groupRequest
  },
  {
    name: 'token',
    group: 'texts',
    summary: 'a token of an invitation',
    seeds: () => [bytes(TOKEN)],
    mutate: mutateToken,
    run: input =>
      attempt(
        /^TOKEN_INVALID$/,
        () => decodeToken(textOf(input)),
        value => assert.equal(typeof value.expiresMs, 'number')
      )
  },
  { name: 'join', group: 'texts', summary: 'who asks to join, and what is answered', seeds: joinSeeds, run: joining },
  {
    name: 'register-record',
    group: 'texts',
    summary: "a register's entries on disk",
    seeds: registerSeeds,
    run: registerRecord
  },
  { name: 'segment', group: 'texts', summary: 'a file of shards on disk', seeds: () => [segmentSeed()], run: segment }
]
