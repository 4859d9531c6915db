/**
 * What a member may do with consoles that asks a host by itself, in the language of the protocol and past every API: the host is
 * real, with a real group and real files; only the machine and the wire are not.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { GroupAgent, type GroupAgentDeps } from '../../node/agents/group-agent.ts'
import { ConsoleLogs } from '../../node/host/console-log.ts'
import type { ControlBus } from '../../node/ports.ts'
import { MAX_READ_BYTES, MAX_TYPED_CHARACTERS, MAX_WAIT_MS } from '../../protocols/console/messages.ts'
import { ConsoleExchange, MAX_STANDING } from '../../protocols/console/shell.ts'
import { aGroup, aVm } from './group-records.ts'

const VM = { group: 'shop', vm: 'till' }
/** Nothing comes of waiting. */
const clock = { now: () => 0, after: () => () => {} }

let folder: string
let typed: string[]
let events: string[]
let answers: { to: string; message: Record<string, unknown> }[]
/** What the host hears from a member. */
let hear: (from: string, message: object) => void

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'diapause-consoles-'))
  mkdirSync(join(folder, 'console'))
  writeFileSync(join(folder, 'console', 'shop.till.log'), 'login: ')
  writeFileSync(join(folder, 'secret.log'), 'of the host')
  ;[typed, events, answers] = [[], [], []]
  const agent = aHost()
  agent.onRecord(aGroup({ id: VM.group, vms: [aVm(VM.vm)], owners: { [VM.vm]: 'elm' } }))
  await vi.waitUntil(() => events.includes('vm.started'))
  events.length = 0
  const logs = new ConsoleLogs(folder, clock, MAX_READ_BYTES)
  const bus: ControlBus = {
    self: 'elm',
    send: (to, _protocol, message) => answers.push({ to, message: { ...message } }) > 0,
    on: (_protocol, parse, handler) => void (hear = (from, message) => handler(from, parse(message)))
  }
  const type = ({ vm, text }: { vm: string; text: string }): Promise<void> => agent.type(vm, text)
  void new ConsoleExchange({ bus, clock, type, read: question => logs.read(question) })
})

afterEach(() => rmSync(folder, { recursive: true }))

/** A host whose VMs run at once. */
function aHost(): GroupAgent {
  const done = async () => {}
  const nic = { ends: [], hold: done, release: done, detach: done, close: done }
  const type = async (text: string): Promise<void> => void typed.push(text)
  const vm = {
    hypervisor: { define: () => ({ start: done, stop: done, resume: done, destroy: done, type }) },
    network: { attach: async () => nic },
    openWorker: async () => ({ close: done }),
    path: () => '',
    wallMs: () => 0
  }
  const deps = {
    self: 'elm',
    members: () => [],
    nameOf: (id: string) => id,
    hosting: { vm, uplink: true, started: { of: () => 0, note: done } },
    network: { setGroup() {}, removeGroup() {} },
    leases: { acquire: done },
    directory: { broadcast() {} },
    clock,
    report: (kind: string) => events.push(kind),
    note() {}
  }
  return new GroupAgent(deps as unknown as GroupAgentDeps)
}

const answersTo = (member: string) => answers.flatMap(({ to, message }) => (to === member ? [message] : []))

describe('a member that has nothing to do with a VM', () => {
  it('reads its console and types on it, is asked for no role, and no event tells of it', async () => {
    hear('witness', { kind: 'read', id: 1, ...VM, from: 0, waitMs: 0 })
    hear('witness', { kind: 'type', id: 2, ...VM, text: 'root\n' })
    await expect.poll(() => answersTo('witness').length).toBe(2)
    const said = { kind: 'said', id: 1, from: 0, bytes: Buffer.from('login: ').toString('base64') }
    expect(answersTo('witness')).toEqual(expect.arrayContaining([said, { kind: 'typed', id: 2 }]))
    expect(typed).toEqual(['root\n'])
    expect(events).toEqual([])
  })

  it('has so many questions about consoles that stand and no more, and takes no place from others', async () => {
    const wait = (from: string, id: number): void =>
      hear(from, { kind: 'read', id, ...VM, from: 'login: '.length, waitMs: MAX_WAIT_MS })
    for (let id = 1; id <= MAX_STANDING + 3; id++) wait('witness', id)
    hear('oak', { kind: 'type', id: 1, ...VM, text: 'ls\n' })
    await expect.poll(() => answersTo('oak')).toEqual([{ kind: 'typed', id: 1 }])
    await expect.poll(() => answersTo('witness').map(({ code }) => code)).toEqual(Array(3).fill('CONSOLE_BUSY'))
  })

  it('reads no other file by a name that leads elsewhere, types no more than a line at a time, and nothing on a VM of another host', async () => {
    for (const group of ['../secret', '..', '/etc/passwd', 'a/b', '']) {
      expect(() => hear('witness', { kind: 'read', id: 1, group, vm: 'till', from: 0, waitMs: 0 })).toThrow()
      expect(() => hear('witness', { kind: 'read', id: 1, group: 'shop', vm: group, from: 0, waitMs: 0 })).toThrow()
    }
    const long = 'x'.repeat(MAX_TYPED_CHARACTERS + 1)
    expect(() => hear('witness', { kind: 'type', id: 2, ...VM, text: long })).toThrow()
    hear('witness', { kind: 'type', id: 3, group: 'shop', vm: 'door', text: 'ls\n' })
    await expect.poll(() => answersTo('witness')).toMatchObject([{ id: 3, kind: 'refusal', code: 'VM_ELSEWHERE' }])
    expect(typed).toEqual([])
  })
})
