/** Events of peers in plain words. Pure. What is not known here is shown by its kind and fields, so that nothing is hidden. */
import type { ClusterEvent } from '../../edge/cluster-events-view.ts'
import { bytesOf, durationOf, listOf } from './text.ts'

export type EventTone = 'good' | 'busy' | 'warn' | 'bad' | 'none'

export interface Happening {
  readonly id: string
  readonly atMs: number
  /** Name of the member where it happened. */
  readonly at: string
  readonly kind: string
  readonly tone: EventTone
  readonly text: string
  /** What it is about. */
  readonly group: string | undefined
  readonly vm: string | undefined
}

type Fields = Readonly<Record<string, unknown>>
/** A member's name by its id. */
export type NameOf = (id: string) => string

export function happeningOf({ id, atMs, name, event }: ClusterEvent, nameOf: NameOf): Happening {
  const { kind, atMs: _own, ...fields } = event
  const words = known[kind]?.(fields, nameOf)
  const [tone, text] = words ?? ['none', otherText(kind, fields)]
  return { id, atMs, at: name, kind, tone, text, group: wordOf(fields, 'group'), vm: wordOf(fields, 'vm') }
}

const wordOf = (fields: Fields, name: string): string | undefined => {
  const value = fields[name]
  return typeof value === 'string' ? value : undefined
}
const text = (fields: Fields, name: string): string => wordOf(fields, name) ?? JSON.stringify(fields[name]) ?? '?'
const ms = (fields: Fields, name: string): string =>
  typeof fields[name] === 'number' ? durationOf(fields[name]) : 'an unknown time'

type Words = (fields: Fields, nameOf: NameOf) => readonly [EventTone, string]

const vmOf = (fields: Fields): string => `${text(fields, 'group')}/${text(fields, 'vm')}`

const known: Readonly<Record<string, Words>> = {
  liveness: (f, nameOf) => {
    const liveness = text(f, 'liveness')
    const tone = liveness === 'alive' ? 'good' : liveness === 'suspect' ? 'warn' : 'bad'
    return [tone, `holds ${nameOf(text(f, 'peer'))} for ${liveness}: ${text(f, 'why')}`]
  },
  'peer.started': f => ['none', `started, ${text(f, 'hypervisor')}`],
  'epoch.opened': f => ['busy', `opened epoch ${text(f, 'epoch')} of ${text(f, 'group')}`],
  'epoch.committed': f => [
    'good',
    `committed epoch ${text(f, 'epoch')} of ${text(f, 'group')}, ${ms(f, 'commitMs')} after it was opened`
  ],
  'epoch.aborted': f => ['warn', `aborted epoch ${text(f, 'epoch')} of ${text(f, 'group')}: ${text(f, 'reason')}`],
  cut: f => ['none', `cut ${vmOf(f)} for epoch ${text(f, 'epoch')}: it stood still for ${ms(f, 'pauseMs')}`],
  'epoch.durable': f => ['none', `the image of ${vmOf(f)} of epoch ${text(f, 'epoch')} is durable`],
  'takeover.decided': (f, nameOf) => ['bad', takeoverText(f, nameOf)],
  'group.created': f => ['none', `made group ${text(f, 'group')}`],
  'group.removed': f => ['none', `removed group ${text(f, 'group')}`],
  'group.restored': f => [
    'warn',
    `took ${text(f, 'group')} back to epoch ${text(f, 'epoch')} by hand, generation ${text(f, 'generation')}`
  ],
  'group.rests': f => ['none', `let ${text(f, 'group')} rest at epoch ${text(f, 'epoch')}`],
  'group.started': f => [
    'good',
    `started ${text(f, 'group')} from epoch ${text(f, 'epoch')}, generation ${text(f, 'generation')}`
  ],
  'vm.started': f => ['good', `${vmOf(f)} boots, generation ${text(f, 'generation')}`],
  'vm.resumed': f => [
    'good',
    `${vmOf(f)} runs again from epoch ${text(f, 'epoch')}, ${ms(f, 'spawnToRunMs')} after its machine was started`
  ],
  'vm.complete': f => ['good', `${vmOf(f)} has all of its pages`],
  'vm.rebooted': f => ['none', `${vmOf(f)} was rebooted by its guest`],
  'vm.powered-off': f => ['none', `${vmOf(f)} was turned off by its guest, and boots anew`],
  'vm.failed': f => ['bad', `${vmOf(f)} failed: ${text(f, 'reason')}`],
  'vm.destroyed': f => ['none', `ended ${vmOf(f)} of generation ${text(f, 'generation')}`],
  'lease.lapsed': f => ['bad', `its lease of ${text(f, 'key')} has lapsed: its VMs stand still`],
  'lease.regained': f => ['good', `has its lease of ${text(f, 'key')} again: its VMs go on`],
  'lease.lost': f => ['warn', `lost ${text(f, 'key')} to generation ${text(f, 'newer')}`],
  'drill.begun': f => ['busy', `began a drill of ${text(f, 'group')} from epoch ${text(f, 'epoch')}`],
  'drill.passed': f => ['good', `the drill of ${text(f, 'group')} passed in ${ms(f, 'tookMs')}`],
  'drill.failed': f => ['bad', `the drill of ${text(f, 'group')} failed: ${text(f, 'reason')}`],
  'repair.done': f => {
    const bytes = typeof f['bytes'] === 'number' ? ` (${bytesOf(f['bytes'])})` : ''
    const failed = f['failures'] === 0 ? '' : `, ${text(f, 'failures')} tries failed`
    return [failed === '' ? 'good' : 'warn', `rebuilt ${text(f, 'columns')} columns${bytes}${failed}`]
  },
  'scrub.damaged': f => ['bad', `read a damaged column: ${text(f, 'column')} of ${text(f, 'stream')}`],
  'member.joined': f => ['good', `${text(f, 'member')} joined the cluster`],
  'member.removed': f => ['warn', `${text(f, 'member')} is no member any more`]
}

function takeoverText(fields: Fields, nameOf: NameOf): string {
  const { lost, owners } = fields
  const vms = Array.isArray(lost) ? lost.map(String) : []
  const places = typeof owners === 'object' && owners !== null ? Object.entries(owners) : []
  const moves = places.filter(([vm]) => vms.includes(vm)).map(([vm, owner]) => `${vm} to ${nameOf(String(owner))}`)
  return `decided that ${text(fields, 'group')} goes back to epoch ${text(fields, 'epoch')}: ${listOf(moves)}`
}

function otherText(kind: string, fields: Fields): string {
  const words = Object.entries(fields).map(([name, value]) => {
    const shown = typeof value === 'string' ? value : JSON.stringify(value)
    return `${name} ${shown.length > 80 ? `${shown.slice(0, 79)}…` : shown}`
  })
  return [kind, ...words].join(' · ')
}
