/** The dashboard and the alert rules ask for what a peer tells, by its names and labels, and the metrics keep to their bounds. */
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { MAX_NAMED } from '../../node/edge/metrics-counts.ts'
import { Metrics } from '../../node/edge/metrics.ts'
import type { GroupStatus, PeerStatus } from '../../node/edge/view.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { aGroup, aVm } from './group-records.ts'
import { aStatus } from './status-support.ts'

const record = (id: string): GroupRecord =>
  aGroup({
    id,
    generation: 2,
    vms: [aVm('web', { objective: { backMs: 5_000 } })],
    owners: { web: 'id-one' },
    lastEpoch: 4,
    committed: { epoch: 4, generation: 2, previousEpoch: 3, images: {}, wallMs: 1_000_000 },
    drills: { last: { epoch: 4, by: 'id-one', atMs: 2_000, tookMs: 1 } }
  })

const groupOf = (id: string): GroupStatus => ({
  record: record(id),
  running: ['web'],
  captures: {},
  leaseRemainingMs: 900,
  outlooks: {
    web: { backMs: 2_000, parts: { detectMs: 1, decideMs: 1, runsMs: 1 }, bySettings: [], lossMs: 3_000, missed: [] }
  }
})

const status = (groups: readonly string[]): PeerStatus => ({
  ...aStatus,
  members: aStatus.members.map(member => ({ ...member, freeBytes: 1_000 })),
  groups: groups.map(groupOf),
  redundancy: {
    exposed: [],
    repaired: { columns: 1, bytes: 2, failures: 0, due: 0, damaged: 3 },
    scrubbed: { columns: 1, damaged: 0, startedMs: 1, last: { endedMs: 2, columns: 1, damaged: 0 } }
  }
})

const stats = { bytesStored: 5_000, pagesChanged: 7, inFlightFrames: 2 }

/** A peer to which everything has happened that it tells of. */
function lived(group = 'bank'): Metrics {
  const metrics = new Metrics(() => true)
  metrics.measureProcess()
  metrics.told = { delivered: 1, failed: 0, lost: 0 }
  const event = (kind: string, fields: object): void => metrics.onEvent({ atMs: 1, kind, group, vm: 'web', ...fields })
  event('epoch.committed', { epoch: 4, commitMs: 400, skewMs: 3 })
  event('epoch.aborted', { epoch: 5, reason: 'its deadline passed' })
  event('cut', { pauseMs: 12 })
  event('epoch.durable', { stats })
  event('vm.resumed', { spawnToRunMs: 900, from: 'standby' })
  event('liveness', { peer: 'two', liveness: 'dead' })
  event('lease.lapsed', {})
  event('scrub.damaged', { stream: 'bank/web/1/1' })
  for (const how of ['rebooted', 'powered-off', 'powered-off']) event(`vm.${how}`, { generation: 1 })
  metrics.onRestart(group, 'failover')
  metrics.onDecision({
    key: 'group/bank',
    kind: 'change',
    outcome: 'chosen',
    version: 1,
    ballot: undefined,
    phase: undefined,
    votes: {},
    leaseMs: {},
    retryMs: undefined,
    generation: 1,
    rounds: 2,
    tookMs: 4
  })
  return metrics
}

/** Name → labels → their values, of a text in Prometheus' format. */
function told(text: string): Map<string, Map<string, Set<string>>> {
  const names = new Map<string, Map<string, Set<string>>>()
  for (const [, name = '', labels = ''] of text.matchAll(/^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$/gm)) {
    const known = names.get(name) ?? new Map<string, Set<string>>()
    for (const [, label = '', value = ''] of labels.matchAll(/(\w+)="([^"]*)"/g)) {
      known.set(label, (known.get(label) ?? new Set()).add(value))
    }
    names.set(name, known)
  }
  return names
}

/** What Prometheus adds to each. */
const ADDED = ['job', 'instance']

/** What an expression asks for that is not told. */
function lacking(expression: string, names: ReturnType<typeof told>): string[] {
  const asked = [...expression.matchAll(/\b((?:diapause|nodejs|process)_\w+|up)\b(?:\{([^}]*)\})?/g)]
  return asked.flatMap(([, name = '', matchers = '']) => {
    if (name === 'up') return []
    const labels = names.get(name)
    if (labels === undefined) return [`${name} is not told`]
    return [...matchers.matchAll(/(\w+)(=~|=)"([^"]*)"/g)].flatMap(([, label = '', how, value = '']) => {
      if (ADDED.includes(label)) return []
      const values = [...(labels.get(label) ?? [])]
      const wanted = how === '=~' ? value.split('|') : [value]
      return wanted.every(each => values.includes(each)) ? [] : [`${name} has no ${label}="${value}"`]
    })
  })
}

/** Labels by which an expression groups, that none of its metrics has. */
function unknownGroups(expression: string, names: ReturnType<typeof told>): string[] {
  const metrics = [...expression.matchAll(/\b(?:diapause|nodejs|process)_\w+/g)].map(([name]) => names.get(name))
  const by = [...expression.matchAll(/by \(([^)]*)\)/g)].flatMap(([, list = '']) => list.split(/, ?/))
  return by.filter(label => !ADDED.includes(label) && !metrics.some(labels => labels?.has(label)))
}

const file = (name: string): string =>
  readFileSync(new URL(`../../config/observability/${name}`, import.meta.url), 'utf8')

/** As Prometheus' `increase` without its extrapolation: what a series grew by from its first sample on; a fall is a restart at 0. */
const increase = (samples: readonly number[]): number =>
  samples.slice(1).reduce((sum, value, i) => sum + (value < (samples[i] ?? 0) ? value : value - (samples[i] ?? 0)), 0)

/** Of each scrape that has it, the value of a series; `line` is its name and labels. */
const samplesOf = (scrapes: readonly string[], line: string): number[] =>
  scrapes.flatMap(text => {
    const found = text.split('\n').find(each => each.startsWith(`${line} `))
    return found === undefined ? [] : [Number(found.slice(line.length))]
  })

interface Rule {
  readonly alert: string
  readonly expr: string
  readonly annotations: { readonly summary: string; readonly description: string }
}

const rulesOfFile = (): Rule[] =>
  (parse(file('alerts.yml')) as { groups: { rules: Rule[] }[] }).groups.flatMap(({ rules }) => rules)

const ruleOf = (alert: string): string => rulesOfFile().find(rule => rule.alert === alert)?.expr ?? ''

interface Panel {
  readonly title: string
  readonly type: string
  readonly targets?: readonly { readonly expr: string; readonly legendFormat: string }[]
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
}

describe('what Prometheus and Grafana are given', () => {
  it('asks in its alert rules for what a peer tells, and each says what to do', async () => {
    const names = told(await lived().text(status(['bank'])))
    const rules = rulesOfFile()
    expect(rules.length).toBeGreaterThan(15)
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length)
    for (const { alert, expr, annotations } of rules) {
      expect([alert, lacking(expr, names), unknownGroups(expr, names)]).toEqual([alert, [], []])
      const used = [...annotations.summary.matchAll(/\$labels\.(\w+)/g)].map(([, label = '']) => label)
      const has = (label: string): boolean =>
        ADDED.includes(label) ||
        expr.includes(label) ||
        [...names].some(([name, labels]) => expr.includes(name) && labels.has(label))
      expect(used.filter(label => !has(label))).toEqual([])
      expect(annotations.description).not.toBe('')
    }
  })

  it('shows in its dashboard what a peer tells, no panel over another', async () => {
    const names = told(await lived().text(status(['bank'])))
    const { panels, annotations } = JSON.parse(file('grafana.json')) as {
      panels: readonly Panel[]
      annotations: { list: readonly { expr: string }[] }
    }
    for (const { title, targets = [] } of panels) {
      for (const { expr } of targets)
        expect([title, lacking(expr, names), unknownGroups(expr, names)]).toEqual([title, [], []])
    }
    for (const { expr } of annotations.list) expect(lacking(expr, names)).toEqual([])
    const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, i) => `${x + (i % w)},${y + Math.floor(i / w)}`)
    )
    expect(new Set(cells).size).toBe(cells.length)
  })
})

describe('damage that was found in a store', () => {
  it('ends as an alert when it is rebuilt, though the check that found it counts it until its next pass', async () => {
    const scrubbed = { columns: 9, damaged: 3, startedMs: 1, last: { endedMs: 2, columns: 9, damaged: 3 } }
    const scrape = (damaged: number) => {
      const repaired = { columns: 3 - damaged, bytes: 2, failures: 0, due: damaged, damaged }
      return new Metrics(() => true).text({ ...status([]), redundancy: { exposed: [], repaired, scrubbed } })
    }
    const rule = ruleOf('DiapauseDamage')
    const [, gauge = ''] = / or sum by \(job, instance\) \((\w+)\) > 0$/.exec(rule) ?? []
    expect(samplesOf([await scrape(3), await scrape(0)], gauge)).toEqual([3, 0])
    expect(rule).not.toContain('diapause_scrub_')
  })
})

describe('a group that was never saved', () => {
  it('has no time of its last snapshot, but an epoch, 0, and an alert of its own for that', async () => {
    const [bank] = status(['bank']).groups
    const never = bank && { ...bank, record: { ...bank.record, committed: null } }
    const text = await new Metrics(() => true).text({ ...status([]), groups: never ? [never] : [] })
    expect(samplesOf([text], 'diapause_group_epoch{group="bank"}')).toEqual([0])
    expect(text).not.toContain('diapause_group_committed_timestamp_seconds{')
    expect(ruleOf('DiapauseNeverSaved')).toMatch(/^max by \(group\) \(diapause_group_epoch\) == 0 unless .*resting/)
  })
})

describe('a group that rests', () => {
  it('is not said to be unsaved, however long ago its last snapshot was', () => {
    const rests = /unless on \(group\) \(max by \(group\) \(diapause_group_resting(?:\{[^}]*\})?\) == 1\)/
    const asked = [...file('alerts.yml').split('\n'), ...file('grafana.json').split('\n')].filter(line =>
      /time\(\) - .*group_committed_timestamp/.test(line)
    )
    expect(asked.length).toBe(3)
    expect(asked.filter(line => !rests.test(line))).toEqual([])
  })
})

describe('metrics', () => {
  it('have names as OpenMetrics has them, each with a help', async () => {
    const text = await lived().text(status(['bank']))
    const types = [...text.matchAll(/^# TYPE (diapause_\w+) (\w+)$/gm)].map(([, name = '', type = '']) => ({
      name,
      type
    }))
    for (const { name, type } of types) {
      expect([name, name.endsWith('_total')]).toEqual([name, type === 'counter'])
      expect(text).toContain(`# HELP ${name} `)
    }
    expect(types.map(({ name }) => name).filter(name => /_(ms|millis|mb|kb)(_|$)/.test(name))).toEqual([])
    expect(new Set(types.map(({ name }) => name)).size).toBe(types.length)
  })

  it('count what happened', async () => {
    const lines = (await lived().text(status(['bank']))).split('\n')
    for (const line of [
      'diapause_epochs_total{outcome="committed"} 1',
      'diapause_group_epochs_total{group="bank",outcome="aborted"} 1',
      'diapause_group_restarts_total{group="bank",why="failover"} 1',
      'diapause_group_committed_timestamp_seconds{group="bank"} 1000',
      'diapause_damaged_columns 3',
      'diapause_events_total{about="scrub",event="damaged"} 1',
      'diapause_group_last_epoch_seconds{group="bank"} 0.4',
      'diapause_vm_last_pause_seconds{group="bank",vm="web"} 0.012',
      'diapause_vm_last_image_bytes{group="bank",vm="web"} 5000',
      'diapause_vm_pause_seconds_bucket{le="0.02"} 1',
      'diapause_vm_pause_seconds_bucket{le="0.01"} 0',
      'diapause_image_stored_bytes_total 5000',
      'diapause_vm_restores_total{source="standby"} 1',
      'diapause_register_rounds_total 2',
      'diapause_events_total{about="lease",event="lapsed"} 1',
      'diapause_events_total{about="vm",event="rebooted"} 1',
      'diapause_events_total{about="vm",event="powered-off"} 2'
    ]) {
      expect(lines).toContain(line)
    }
  })

  it('say when a group was saved last also where its record does not, as this peer saw it', async () => {
    const metrics = lived()
    metrics.committedMs = (group, epoch) => (group === 'bank' && epoch === 4 ? 2_500 : undefined)
    const { groups, ...rest } = status(['bank', 'shop'])
    const undated = groups.map(each => {
      const { wallMs: _, ...committed } = each.record.committed ?? {
        epoch: 0,
        generation: 0,
        previousEpoch: 0,
        images: {}
      }
      return { ...each, record: { ...each.record, committed } }
    })
    const lines = (await metrics.text({ ...rest, groups: undated })).split('\n')
    expect(lines.filter(line => line.startsWith('diapause_group_committed_timestamp_seconds'))).toEqual([
      'diapause_group_committed_timestamp_seconds{group="bank"} 2.5'
    ])
  })

  it('of groups that others keep are left to those', async () => {
    const metrics = new Metrics(() => false)
    metrics.onEvent({ atMs: 1, kind: 'epoch.committed', group: 'bank', commitMs: 5 })
    metrics.onRestart('bank', 'failover')
    const text = await metrics.text(status(['bank']))
    expect(text).toContain('diapause_epochs_total{outcome="committed"} 0')
    expect(text).toContain('diapause_group_restarts_total{group="bank",why="failover"} 0')
  })

  it('of a failover are an increase of one over the survivors, though the only peer that had counted anything is dead', async () => {
    let owner = 'id-one'
    const peers = ['id-one', 'id-two', 'id-three'].map(id => {
      const metrics = new Metrics(() => owner === id)
      const scrape = () => {
        const groups = status(['bank']).groups.map(each => ({
          ...each,
          record: { ...each.record, owners: { web: owner } }
        }))
        return metrics.text({ ...status([]), id, groups })
      }
      return { metrics, scrape, scrapes: [] as string[] }
    })
    const scrapeAll = async (some: typeof peers) => {
      for (const { scrape, scrapes } of some) scrapes.push(await scrape())
    }
    await scrapeAll(peers)
    const survivors = peers.slice(1)
    owner = 'id-three'
    for (const { metrics } of survivors) {
      metrics.onRestart('bank', 'failover')
      metrics.onEvent({ atMs: 1, kind: 'epoch.aborted', group: 'bank', epoch: 5 })
    }
    await scrapeAll(survivors)
    await scrapeAll(survivors)
    for (const series of [
      'group_restarts_total{group="bank",why="failover"}',
      'group_epochs_total{group="bank",outcome="aborted"}'
    ]) {
      const grown = peers.map(({ scrapes }) => increase(samplesOf(scrapes, `diapause_${series}`)))
      expect([series, grown]).toEqual([series, [0, 0, 1]])
    }
  })

  it('are told by name of so many groups and VMs only, and of none that is gone', async () => {
    const metrics = new Metrics(() => true)
    const ids = Array.from({ length: MAX_NAMED + 20 }, (_, i) => `g${i}`)
    for (const group of ids) {
      metrics.onEvent({ atMs: 1, kind: 'epoch.committed', group, commitMs: 5 })
      metrics.onEvent({ atMs: 1, kind: 'cut', group, vm: 'web', pauseMs: 5 })
    }
    const names = told(await metrics.text(status(ids)))
    for (const [name, labels] of names)
      expect([name, (labels.get('group')?.size ?? 0) <= MAX_NAMED]).toEqual([name, true])
    const text = await metrics.text(status(['bank']))
    expect(text).toContain('diapause_unnamed{what="groups"} 0')
    expect(text).not.toContain('"g7"')
  })
})
