import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { FAULTS } from '../chaos/faults/list.ts'
import { againOf } from '../chaos/one-run.ts'
import { readOptions, usage } from '../chaos/options.ts'
import { random } from '../chaos/scenarios.ts'

const names = (...args: string[]) => readOptions(args).scenarios.map(({ name }) => name)

describe('the command line of chaos', () => {
  it('breaks at random where nothing is said, by a seed that it makes', () => {
    const options = readOptions([])
    expect(options).toMatchObject({ hosts: 3, minutes: undefined, json: undefined, keep: false })
    expect(names()).toEqual(['random'])
    expect(readOptions([]).seed).not.toBe(options.seed)
  })

  it('takes every scenario by its name, and all at once but the random mix', () => {
    expect(names('--scenario', 'kill-peer')).toEqual(['kill-peer'])
    expect(names('--scenario', 'all')).toEqual(expect.arrayContaining([...FAULTS.keys(), 'two-in-turn']))
    expect(names('--scenario', 'all')).not.toContain('random')
  })

  it('takes seed, time, hosts and a file', () => {
    const file = join(tmpdir(), 'report.json')
    const args = ['--seed', '42', '--minutes', '30', '--hosts', '5', '--json', file, '--keep']
    expect(readOptions(args)).toMatchObject({ seed: 42, minutes: 30, hosts: 5, json: file, keep: true })
    expect(readOptions(['--seed', 'random']).seed).toBeGreaterThan(0)
  })

  it('takes rounds instead of time', () => {
    expect(readOptions(['--rounds', '12'])).toMatchObject({ rounds: 12, minutes: undefined })
    expect(() => readOptions(['--rounds', '12', '--minutes', '3'])).toThrow(/--minutes/)
    expect(() => readOptions(['--scenario', 'soak', '--rounds', '12'])).toThrow(/soak/)
  })

  it('is told by each run, for its faults again', () => {
    const round = { steps: [], backMs: 0, redundantMs: 0 }
    const told = againOf({ scenario: 'random', seed: 42, hosts: 5, rounds: [round, round, round] })
    const [program, args] = told.split(' -- ')
    expect(program).toBe('npm run chaos')
    expect(readOptions(args?.split(' ') ?? [])).toMatchObject({ seed: 42, hosts: 5, rounds: 3, scenarios: [random] })
  })

  it('soaks for as long as is said, and breaks nothing then', () => {
    expect(readOptions(['--scenario', 'soak'])).toMatchObject({
      scenarios: [],
      soak: { minutes: 30, intervalMs: 10_000 }
    })
    expect(readOptions(['--scenario', 'soak', '--minutes', '60', '--interval', '4']).soak).toEqual({
      minutes: 60,
      intervalMs: 4_000
    })
    expect(readOptions(['--scenario', 'kill-peer']).soak).toBeUndefined()
  })

  it('says what is wrong, and what is expected', () => {
    const wrong: readonly (readonly [string[], RegExp])[] = [
      [['--scenario', 'tea'], /there is no scenario "tea"/],
      [['--seed', 'x'], /--seed takes a whole number/],
      [['--hosts', '2'], /--hosts takes a whole number from 3 to 9/],
      [['--minutes', '0'], /--minutes takes a whole number from 1/],
      [['--scenario', 'soak', '--minutes', '5'], /--minutes takes a whole number from 7/],
      [['--interval', '10'], /--interval is for --scenario soak/],
      [['--json', '/nowhere/at/all.json'], /there is no folder/],
      [['--loud'], /--loud/]
    ]
    for (const [args, message] of wrong) expect(() => readOptions(args)).toThrow(message)
  })

  it('tells of every scenario in its help', () => {
    for (const name of [...FAULTS.keys(), 'random', 'flapping', 'soak']) expect(usage()).toContain(name)
  })
})
