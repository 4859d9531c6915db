import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, describe, expect, it } from 'vitest'
import { FAULTS } from '../chaos/faults/list.ts'
import type { Home } from '../chaos/fault.ts'
import { listText, readPlanted } from '../chaos/planted/command.ts'
import { kindOf, kindsOf } from '../chaos/planted/kinds.ts'
import { MISTAKES } from '../chaos/planted/list.ts'
import { type Mistake, plant, ROOT } from '../chaos/planted/mistake.ts'
import { foundBy, hookOption, plantedCheck, runOf, saysLittle, soundCheck } from '../chaos/planted/run.ts'
import { CONNECTIONS_BROKE, inWords } from '../chaos/promises.ts'
import { planRound } from '../chaos/scenario.ts'
import { DiapauseError } from '../../node/errors.ts'

const all = [...MISTAKES.values()]
const dir = mkdtempSync(join(tmpdir(), 'diapause-planted-'))
afterAll(() => rmSync(dir, { recursive: true }))
const mistake = MISTAKES.get('lease-without-a-majority') as Mistake

describe('a planted mistake', () => {
  it.each(all.map(each => [each.name, each] as const))(
    '%s is to be planted once, in code that still parses',
    (_, each) => {
      const source = readFileSync(join(ROOT, each.file), 'utf8')
      const planted = plant(source, each)
      expect(planted).not.toBe(source)
      expect(() => stripTypeScriptTypes(planted)).not.toThrow()
    }
  )

  it('that is lost by a change of the code is told', () => {
    const edits = [{ find: 'a', replace: 'b' }]
    expect(plant('xay', { name: 'n', file: 'f', edits })).toBe('xby')
    expect(() => plant('xy', { name: 'n', file: 'f', edits })).toThrow(/0 times/)
    expect(() => plant('xaya', { name: 'n', file: 'f', edits })).toThrow(/2 times/)
  })

  it('comes with a scenario whose faults there are, on hosts that there are', () => {
    expect(all.length).toBeGreaterThanOrEqual(10)
    for (const { scenario, seed, name } of all) {
      for (const number of [0, 1, 2, 3])
        for (const { fault, host } of planRound(scenario, seed, { number, hosts: 3 })) {
          expect(FAULTS.has(fault), name).toBe(true)
          expect(host).toBeLessThan(3)
        }
    }
  })
})

describe('the command line', () => {
  it('takes a mistake by its name, all, none, or tells them', () => {
    expect(readPlanted(['--scenario', 'kill-peer'])).toBeUndefined()
    expect(readPlanted(['--planted', mistake.name])).toMatchObject({ what: 'mistakes', mistakes: [mistake] })
    expect(readPlanted(['--planted=all', '--keep'])).toMatchObject({ what: 'mistakes', mistakes: all, keep: true })
    expect(readPlanted(['--planted', 'none'])?.what).toBe('none')
    for (const { name, why } of all) {
      expect(listText(all)).toContain(name)
      expect(listText(all)).toContain(why)
    }
  })

  it('says what is wrong', () => {
    expect(() => readPlanted(['--planted', 'tea'])).toThrow(/there is no mistake "tea"/)
    expect(() => readPlanted(['--planted', 'all', '--seed', '1'])).toThrow(/--seed/)
    expect(() => readPlanted(['--planted', 'all', '--json', '/nowhere/at/all.json'])).toThrow(/there is no folder/)
  })
})

describe('a run with a planted mistake', () => {
  const outcome = (...broken: string[]) => ({
    broken,
    entries: broken.map((text, i) => ({ atMs: 1_000 * i, kind: 'broken' as const, text }))
  })

  it('starts peers with the hook, and does nothing else to them than its scenario', async () => {
    const { scenario, faults } = runOf(mistake, FAULTS)
    const environments = await Promise.all(
      scenario.faults.map(name => faults.get(name)?.prepare?.({ scratchDir: dir } as Home) ?? Promise.resolve({}))
    )
    expect(
      environments.some((each: NodeJS.ProcessEnv) => each['NODE_OPTIONS']?.includes(hookOption(mistake.name)))
    ).toBe(true)
    const turn = { number: 0, hosts: 3 }
    expect(planRound(scenario, 1, turn)).toEqual(planRound(mistake.scenario, 1, turn))
  })

  it('is right only where the promise that it must break is broken', () => {
    const other = 'redundancy: waited 60 s in vain for full redundancy'
    const its = 'one copy of vm1 was heard: vm1 was heard from h1 (stint 2) when it was another host’s'
    const found = [outcome(), outcome(other), outcome(other, its)].map(each => foundBy(mistake, each))
    expect(found.map(plantedCheck)).toMatchObject([
      { value: 'none', bound: 'one copy', ok: false },
      { value: 'redundancy', ok: false },
      { value: 'redundancy, one copy', ok: true }
    ])
    expect(found.map(({ foundMs }) => foundMs)).toEqual([null, null, 1_000])
  })

  it('tells in how many rounds it was found: as many are run without it where that says little', () => {
    const round = (atMs: number) => ({ atMs, kind: 'round' as const, text: 'round' })
    const { broken, entries } = outcome('one copy of vm1 was heard: twice')
    expect(foundBy(mistake, { broken, entries: [round(1), round(2), ...entries] }).rounds).toBe(2)
  })

  it('says little where something only did not come, or late, as on a busy machine, by whichever name it goes', () => {
    const waited = 'waited 60 s in vain for'
    const late = {
      running: `coming back: ${waited} money to move on every connection`,
      money: `coming back: ${waited} money to move on every connection: ${CONNECTIONS_BROKE}`,
      redundancy: `redundancy: ${waited} full redundancy`,
      bounds: 'p1: delay of the event loop (ms, 99 %) is 1200, above 1000',
      'in time': 'all VMs work again after 36.1 s: not within the objective'
    } as const
    const plain = {
      money: 'money is conserved: 3 transfers lost or doubled',
      redundancy: 'what is stored was read: 1 columns are damaged at p1, and no fault has done that',
      bounds: 'what no kept epoch needs is dropped: h1 has 41 streams, and kept images need 32',
      epochs: 'committed epochs are there: epoch 7 was committed, and the group knows of none after 6'
    } as const
    const expected = ['running', 'money', 'redundancy', 'bounds', 'in time'] as const
    const said = (...broken: string[]) => saysLittle({ expected, broken })
    expect(Object.values(late).map(kindOf)).toEqual(Object.keys(late))
    expect(Object.values(late).filter(each => !said(each, plain.epochs))).toEqual([])
    expect(Object.values(plain).map(kindOf)).toEqual(Object.keys(plain))
    expect(Object.values(plain).filter(each => said(...Object.values(late), each))).toEqual([plain.epochs])
    expect([said(), said(plain.epochs)]).toEqual([false, false])
  })

  it('is to be green without its mistake', () => {
    expect(soundCheck('all-die', [])).toMatchObject({ value: 'none', bound: 'none', ok: true })
    expect(soundCheck('all-die', ['p1: open descriptors'])).toMatchObject({ value: 'bounds', ok: false })
  })

  it('is told what broke by the words that a run has for it', () => {
    const words = [
      'money is conserved: the VMs hold 127990 instead of 128000',
      'epoch 7 is restored whole: 3 transfers lost or doubled',
      'committed epochs are there: epoch 7 was committed, and the group knows of none after 6',
      'coming back: waited 60 s in vain for money to move on every connection',
      'going back: waited 60 s in vain for all that is stored to be whole',
      'going back: no peer within reach has manifest b295 [MANIFEST_MISSING]',
      'every VM is heard from its host: vm1 was never heard',
      'what no kept epoch needs is dropped: h1 has 41 streams, and kept images need at most 32',
      'coming back: waited 60 s in vain for money to move on every connection: all VMs speak, and not with each other',
      'all VMs work again after 36.1 s: not within the objective',
      'p2: open descriptors grew from 60.00 to 120.00',
      'left behind: socket /tmp/x'
    ]
    expect(words.map(kindOf)).toEqual(
      'money money epochs running running epochs heard bounds money in_time bounds other'
        .split(' ')
        .map(word => word.replace('_', ' '))
    )
    expect(kindsOf(words)).toEqual(['money', 'epochs', 'running', 'heard', 'bounds', 'in time', 'other'])
  })

  it('is told of epochs where what it went back to is gone, and not where it could not go back for another reason', () => {
    const notKept = new DiapauseError('EPOCH_NOT_KEPT', 'Epoch 5 of group "bank" is not kept; 6, 7 are.')
    const lost = [
      notKept,
      new DiapauseError('GROUP_UNKNOWN', 'There is no group "bank" in this cluster.'),
      new DiapauseError('MANIFEST_MISSING', 'no peer within reach has manifest b295'),
      new DiapauseError('MANIFEST_INVALID', 'this is no manifest of an image, or one of another version:\n2')
    ]
    const others = [
      new DiapauseError('DEMO_CONNECT', 'after 120 s only 2 of 3 peers see all others alive; their logs are p*/log'),
      new DiapauseError('GROUP_CHANGED', 'Group "bank" changed at this moment; look at it and try again.'),
      new DiapauseError('REGISTER_UNAVAILABLE', 'no majority of the voters answers'),
      new DiapauseError('PEER_LOST', 'the peer broke off (read ECONNRESET): it said [EPOCH_NOT_KEPT] before'),
      new Error('no peer is left'),
      new Error('the group has gone back 5 times while it was to be audited, and nobody breaks anything'),
      new Error('connect ECONNREFUSED /run/api.sock'),
      new Error('waited 60 s in vain for epochs to go back to')
    ]
    const kinds = (errors: readonly Error[]) => errors.map(error => kindOf(`going back: ${inWords(error)}`))
    expect(kinds(lost)).toEqual(lost.map(() => 'epochs'))
    expect(kinds(others)).toEqual(others.map(() => 'running'))
    expect(kindOf(`coming back: ${inWords(notKept)}`)).toBe('running')
  })
})

describe('the hook', () => {
  const program = `
    import { Worker, isMainThread } from 'node:worker_threads'
    const { LeaseHolder } = await import(${JSON.stringify(pathToFileURL(join(ROOT, mistake.file)).href)})
    console.log(isMainThread ? 'main' : 'thread', String(LeaseHolder).includes('const majority = 1'))
    if (isMainThread) new Worker(new URL(import.meta.url))`
  const url = `data:text/javascript,${encodeURIComponent(program)}`
  const run = async (options: string) => {
    const env = { ...process.env, NODE_OPTIONS: options, NODE_COMPILE_CACHE: join(dir, 'cache') }
    const args = ['--input-type=module', '--eval', `await import(${JSON.stringify(url)})`]
    const { stdout } = await promisify(execFile)(process.execPath, args, { env })
    return stdout.trim().split('\n')
  }

  it('changes the module in a process and in its threads, whatever Node has compiled before, and for nobody after it', async () => {
    const sound = ['main false', 'thread false']
    expect(await run('')).toEqual(sound)
    expect(await run(hookOption(mistake.name))).toEqual(['main true', 'thread true'])
    expect(await run('')).toEqual(sound)
  })

  it('ends a process that is to have a mistake that nobody knows', async () => {
    await expect(run(hookOption('tea'))).rejects.toThrow(/there is no mistake "tea"/)
  })
})
