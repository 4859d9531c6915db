/** Policies that the operator supplies: what they may do wrong without harm to the peer. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openOwnPolicies } from '../../node/host/own-policies.ts'
import type { PolicyModules, PolicyQuestion } from '../../node/ports.ts'
import { seenEpoch } from './epoch-history-support.ts'
import { memoryLog, withDirectory } from './store-support.ts'

const question: PolicyQuestion = {
  history: [seenEpoch(1), seenEpoch(2)],
  now: { nowMs: 5_000_000, sinceMs: 1 },
  settings: { everyMs: 7_000 }
}

/** Modules by name, asked and closed. */
const using = (
  sources: Readonly<Record<string, string>>,
  use: (modules: PolicyModules) => Promise<void>,
  log = memoryLog()
) =>
  withDirectory(async directory => {
    const files: Record<string, string> = {}
    for (const [name, source] of Object.entries(sources)) {
      files[name] = join(directory, `${name}.mjs`)
      await writeFile(files[name], source)
    }
    const modules = await openOwnPolicies(files, log, 300)
    try {
      await use(modules)
    } finally {
      await modules.close()
    }
  })

test('a module is given history, now and settings, and its answer counts; several questions wait for each other', () =>
  using(
    {
      mine: `let asked = 0
        export const next = (history, now, { everyMs }) =>
          ({ atMs: history.at(-1).openedAtMs + everyMs, why: 'question ' + ++asked + ' at ' + now.nowMs })`,
      never: 'export async function next() {}'
    },
    async modules => {
      expect(modules.names).toEqual(['mine', 'never'])
      const atMs = seenEpoch(2).openedAtMs + 7_000
      expect(await Promise.all([modules.next('mine', question), modules.next('mine', question)])).toEqual([
        { atMs, why: 'question 1 at 5000000' },
        { atMs, why: 'question 2 at 5000000' }
      ])
      expect(await modules.next('never', question)).toBeUndefined()
    }
  ))

test.each([
  ['throws', 'export function next() { throw new Error("oh") }', /has failed: oh$/],
  ['never ends', 'export function next() { for (;;); }', /no answer within 300 ms$/],
  ['never answers', 'export const next = () => new Promise(() => {})', /no answer within 300 ms$/],
  ['ends its thread', 'export const next = () => process.exit(3)', /its thread has ended$/],
  ['says what is no time', 'export const next = () => ({ atMs: "soon", why: "" })', /says .*soon.*: expected/],
  ['says what cannot be sent', 'export const next = () => ({ atMs: 1, why: () => {} })', /could not be cloned/]
])('one that %s is an error of its own, and another one still answers', (_, source, reason) =>
  using({ bad: source, good: 'export const next = () => ({ atMs: 1, why: "good" })' }, async modules => {
    await expect(modules.next('bad', question)).rejects.toMatchObject({ code: 'POLICY_FAILED' })
    await expect(modules.next('bad', question)).rejects.toThrow(reason)
    expect(await modules.next('good', question)).toEqual({ atMs: 1, why: 'good' })
  })
)

test('one that fails alone, by the settings of whoever tries it, still answers the group that has it', () =>
  using(
    {
      mine: `let asked = 0
        export const next = (history, now, { wild }) => {
          if (wild) throw new Error('wild')
          return { atMs: ++asked, why: '' }
        }`
    },
    async modules => {
      const wild = modules.alone('mine')
      await expect(wild.next({ ...question, settings: { wild: true } })).rejects.toThrow('wild')
      await wild.end()
      expect(await modules.next('mine', question)).toEqual({ atMs: 1, why: '' })
      const calm = modules.alone('mine')
      expect(await calm.next(question)).toEqual({ atMs: 1, why: '' })
      expect(await calm.next(question)).toEqual({ atMs: 2, why: '' })
      await calm.end()
      expect(() => modules.alone('other')).toThrow('no policy "other"')
    }
  ))

test('one that cannot be loaded is told in the log, and again to whoever asks for it; so is one that nobody has', () => {
  const log = memoryLog()
  return using(
    { broken: 'export const next = (', empty: 'export const other = 1' },
    async modules => {
      expect(modules.names).toEqual([])
      expect(log.lines.map(({ level }) => level)).toEqual(['error', 'error'])
      await expect(modules.next('empty', question)).rejects.toThrow('it exports no function "next"')
      await expect(modules.next('broken', question)).rejects.toMatchObject({ code: 'POLICY_FAILED' })
      await expect(modules.next('other', question)).rejects.toThrow(
        'no policy "other" under [policies] of its config (it has broken, empty)'
      )
    },
    log
  )
})
