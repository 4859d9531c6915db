/**
 * What operators are told of a real cluster where an epoch fails and a host is lost: one message by one of three peers, by a webhook
 * and by a command, and traces of an epoch and of the restore of which several peers each tell their part. This process receives
 * messages and traces, the command writes to a file.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, request, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { targetSchema } from '../../config/notices.ts'
import { tracesSchema } from '../../config/traces.ts'
import { Bank, calm } from './bank.ts'

interface Told {
  readonly peer: string
  readonly notices: readonly {
    readonly key: string
    readonly kind: string
    readonly state: string
    readonly text: string
  }[]
}

interface SeenSpan {
  readonly by: string
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly name: string
  readonly startTimeUnixNano: string
  readonly endTimeUnixNano: string
}

interface ExportRequest {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly { key: string; value: { stringValue: string } }[] }
    readonly scopeSpans: readonly { readonly spans: readonly Omit<SeenSpan, 'by'>[] }[]
  }[]
}

const told: Told[] = []
const spans: SeenSpan[] = []

function receive(url: string, text: string): void {
  if (url === '/tell') {
    told.push(JSON.parse(text) as Told)
    return
  }
  for (const { resource, scopeSpans } of (JSON.parse(text) as ExportRequest).resourceSpans) {
    const by = resource.attributes.find(({ key }) => key === 'host.name')?.value.stringValue ?? ''
    for (const each of scopeSpans) spans.push(...each.spans.map(span => ({ ...span, by })))
  }
}

async function listen(): Promise<Server> {
  const server = createServer((asked, response) => {
    let text = ''
    asked.setEncoding('utf8').on('data', (part: string) => (text += part))
    asked.on('end', () => {
      receive(asked.url ?? '', text)
      response.writeHead(200).end('{}')
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  return server
}

/** Name of the span → which peers told one, in order. */
function tellers(traceId: string): Record<string, string[]> {
  const names: Record<string, string[]> = {}
  for (const { name, by } of spans.filter(span => span.traceId === traceId)) (names[name] ??= []).push(by)
  return Object.fromEntries(Object.entries(names).map(([name, by]) => [name, by.toSorted()]))
}

const metricsOf = (socketPath: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const asking = request({ socketPath, path: '/metrics', agent: false }, response => {
      let text = ''
      response.setEncoding('utf8').on('data', (part: string) => (text += part))
      response.on('end', () => resolve(text))
    })
    asking.on('error', reject)
    asking.end()
  })

/** What a peer has counted of the group. A series of which Prometheus has seen no 0 shows it no increase. */
const failoversIn = (metrics: string): number[] =>
  [...metrics.matchAll(/^diapause_group_restarts_total\{group="bank",why="failover"\} (\d+)$/gm)].map(([, n]) =>
    Number(n)
  )

const failoversOf = async (socketPath: string): Promise<number[]> => failoversIn(await metricsOf(socketPath))

describe('a cluster that is watched', () => {
  let bank: Bank
  let server: Server
  let dir: string
  let file: string
  /** Of the epoch that failed. */
  let failedTrace: string

  /** What the command was given, in order: `key state` of each. */
  const commanded = (): string[] =>
    (existsSync(file) ? readFileSync(file, 'utf8').split('\n').slice(0, -1) : []).flatMap(line =>
      (JSON.parse(line) as Told).notices.map(({ key, state }) => `${key} ${state}`)
    )

  beforeAll(async () => {
    server = await listen()
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    dir = mkdtempSync(join(tmpdir(), 'diapause-told-'))
    file = join(dir, 'told')
    const command = `{ cat; echo; } >> '${file}'`
    const notifications = [
      targetSchema.parse({ name: 'pager', webhook: `${url}/tell` }),
      targetSchema.parse({ name: 'file', on: ['epoch-failed'], command })
    ]
    const traces = tracesSchema.parse({ endpoint: `${url}/v1/traces` })
    const common = { ...calm, shards: { k: 2, m: 1 }, repair: { checkEveryMs: 1_000 }, notifications, traces }
    // An epoch that p3 opens has no time for the first images, which are whole.
    const hurried = { ...common, epochs: { intervalMs: 0, deadlineMs: 500 } }
    const settings = ({ name }: { readonly name: string }) => (name === 'p3' ? hurried : common)
    bank = await Bank.start({ peers: 3, settings, vms: 2, memoryMiB: 128 })
  }, 240_000)

  afterAll(async () => {
    await bank?.cluster.stop()
    server?.closeAllConnections()
    server?.close()
    rmSync(dir, { recursive: true, force: true })
  })

  it('tells people once of an epoch that failed, by a command, and once when the next one is committed', async () => {
    expect(await bank.peer('p3').client.takeEpoch('bank')).toMatchObject({ outcome: 'aborted' })
    await bank.until('the command to have run', () => (commanded().length > 0 ? true : undefined))
    failedTrace = await bank.until('its trace', () => spans.find(({ name }) => name === 'epoch')?.traceId)
    await bank.epoch(bank.peer('p1'))
    await bank.until('the command to have run again', () => (commanded().length > 1 ? true : undefined))
    expect(commanded()).toEqual(['epoch-failed/bank begun', 'epoch-failed/bank ended'])
  })

  it('tells of an epoch in one trace, each peer its own part', async () => {
    const committed = ({ name, traceId }: SeenSpan) => name === 'epoch' && traceId !== failedTrace
    const whole = await bank.until('the trace of the epoch', () => spans.find(committed))
    const owners = ['p1', 'p2']
    const expected = { epoch: ['p1'], commit: ['p1'], prepare: owners, cut: owners, upload: owners }
    await bank.until('the parts of both hosts', () =>
      Object.values(tellers(whole.traceId)).flat().length === 8 ? true : undefined
    )
    expect(tellers(whole.traceId)).toEqual(expected)
    for (const { name, traceId, parentSpanId, startTimeUnixNano, endTimeUnixNano } of spans) {
      if (traceId === failedTrace) continue
      expect([name, parentSpanId]).toEqual([name, name === 'epoch' ? undefined : whole.spanId])
      expect(BigInt(startTimeUnixNano)).toBeLessThanOrEqual(BigInt(endTimeUnixNano))
    }
  })

  it('tells people once when a host dies, and traces the restore at all who had a part in it', async () => {
    const survivors = await Promise.all(['p2', 'p3'].map(name => failoversOf(bank.peer(name).socketPath)))
    expect(survivors).toEqual([[0], [0]])
    await bank.killAndWait(bank.peer('p1'))
    await bank.until('people to be told of the failover and of the host', () => {
      const kinds = told.flatMap(({ notices }) => notices.map(({ kind }) => kind))
      return kinds.includes('failover') && kinds.includes('member-dead') ? true : undefined
    })
    const notices = told.flatMap(({ notices: each }) => each)
    const failovers = notices.filter(({ kind }) => kind === 'failover')
    expect(failovers).toHaveLength(1)
    expect(failovers[0]).toMatchObject({ key: 'failover/bank/2', state: 'once' })
    expect(failovers[0]?.text).toMatch(
      /^Failover of group bank: p1 died; vm1 to p[23]; all its VMs go on from snapshot \d+\.$/
    )
    // Where only two are left, no third has the columns of the dead one.
    await bank.until('people to be told of the lost redundancy', () =>
      told.some(({ notices: each }) => each.some(({ kind, state }) => kind === 'low-redundancy' && state === 'begun'))
        ? true
        : undefined
    )
    expect(new Set(notices.map(({ key, state }) => `${key} ${state}`)).size).toBe(notices.length)
    const restore = await bank.until('the trace of the restore', () => spans.find(({ name }) => name === 'restore'))
    await bank.until('both VMs to have read all', () =>
      tellers(restore.traceId)['fetch']?.length === 2 ? true : undefined
    )
    const { decide = [], start, fetch, restore: whole } = tellers(restore.traceId)
    expect({ start, fetch, whole }).toEqual({ start: ['p2', 'p3'], fetch: ['p2', 'p3'], whole: ['p3'] })
    expect(decide.length).toBeGreaterThan(0)
  })

  it('counts the failover once in the metrics of all peers together, at one that told 0 before', async () => {
    const texts = await Promise.all(bank.cluster.alive.map(({ socketPath }) => metricsOf(socketPath)))
    expect(texts.flatMap(failoversIn).toSorted((a, b) => a - b)).toEqual([0, 1])
    expect(texts.join('\n')).toMatch(/^diapause_vm_restores_total\{source="shards"\} 1$/m)
  })

  it('says whom it tells, and tries it', async () => {
    const { client } = bank.peer('p2')
    expect((await client.notifications())[0]).toMatchObject({ name: 'pager', way: 'webhook' })
    const before = told.length
    expect((await client.testNotifications(undefined))[0]).toMatchObject({ name: 'pager' })
    expect(told.slice(before).map(({ notices }) => notices[0]?.key)).toEqual(['test'])
  })

  it('logs more at a signal, and as much as it is asked for, each line as its description says', async () => {
    const { client, logFile } = bank.peer('p2')
    process.kill((await client.status()).pid, 'SIGUSR2')
    const lines = () =>
      readFileSync(logFile, 'utf8')
        .split('\n')
        .filter(line => line.startsWith('{'))
    const line = await bank.until('the log to tell more', () =>
      lines().find(each => each.includes('"kind":"log.level"'))
    )
    expect(JSON.parse(line)).toMatchObject({ level: 'info', name: 'p2', msg: 'the log is at debug now' })
    expect(await client.log()).toEqual({ level: 'debug', configured: 'info' })
    expect(await client.setLog('warn')).toEqual({ level: 'warn', configured: 'info' })
    expect(await client.setLog(undefined)).toEqual({ level: 'info', configured: 'info' })
    for (const each of lines()) {
      const { time, level, name, msg } = JSON.parse(each) as Record<string, unknown>
      expect([typeof time, typeof msg, name]).toEqual(['string', 'string', 'p2'])
      expect(['debug', 'info', 'warn', 'error']).toContain(level)
    }
  })
})
