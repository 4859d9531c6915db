/** Every command that a README names is one that there is: this program's by its own command line, others' by who runs them. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { Command } from 'commander'
import { describe, expect, it } from 'vitest'
import { type CliHost, program } from '../../node/edge/cli.ts'
import { messageOf } from '../../node/errors.ts'
import { benchmarks } from '../bench/list.ts'
import { readOptions } from '../chaos/options.ts'
import { readPlanted } from '../chaos/planted/command.ts'
import { programs } from '../scenarios/programs.ts'
import { cluster } from '../sim/cluster.ts'
import { detection } from '../sim/detection.ts'
import { registers } from '../sim/registers.ts'
import { repairs } from '../sim/repairs.ts'
import { seeds } from '../sim/seeds.ts'
import { commandsOf, example, ofDiapause } from '../walkthrough/commands.ts'

const root = join(import.meta.dirname, '../..')
const folders = ['config', 'docker', 'node', 'protocols', 'test'].flatMap(folder =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map(path => join(folder, path))
)
const named = ['README.md', ...folders]
  .filter(page => basename(page) === 'README.md')
  .flatMap(page => commandsOf(page, readFileSync(join(root, page), 'utf8')))
const scenarios = [seeds, registers, cluster, repairs, detection]

/** Who runs what is no command of this program's: how it begins, the test, and how what is run stands in that. */
const RUN_BY: Readonly<Record<string, readonly [test: string, has: string]>> = {
  'npm run demo': ['test/scenarios/demo.test.ts', "'npm', ['run', 'demo'"],
  'npm run fuzz': ['test/scenarios/programs.test.ts', 'npmRun(script, ['],
  'npm run bench': ['test/scenarios/programs.test.ts', 'npmRun(script, ['],
  'npm run sim': ['test/scenarios/programs.test.ts', 'npmRun(script, ['],
  'npm run pictures': ['test/scenarios/programs.test.ts', "npmRun('pictures'"],
  'npm run adopt-corpus': ['test/scenarios/programs.test.ts', "npmRun('adopt-corpus'"],
  // The tutorial has it, and the test types that.
  'npm run guest': ['test/scenarios/tutorial.test.ts', "'config/tutorial'"],
  'npm install --global ./diapause-': ['test/scenarios/package.test.ts', "'npm', ['install', '--global'"],
  'npm pack': ['test/scenarios/package.test.ts', "'npm', ['pack'"],
  'docker ': ['test/docker/compose.test.ts', "file: 'docker/compose.yaml'"],
  // Read from the page and typed.
  'sudo ovs-vsctl ': ['test/contract/openflow-start.test.ts', "'node/switch/openflow/README.md'"],
  'sudo ip link set eth1 mtu': ['test/contract/openflow-start.test.ts', "'node/switch/openflow/README.md'"],
  'chmod 600 FILE': ['test/unit/cli-home.test.ts', 'chmodSync(file, 0o600)'],
  'ip tuntap add': ['test/contract/qemu-tap.test.ts', "'ip', 'tuntap', 'add'"],
  'curl --unix-socket RUNDIR/api.sock http://peer/metrics': [
    'test/scenarios/observability.test.ts',
    "request({ socketPath, path: '/metrics'"
  ]
}

/** What no test runs, and why. */
const NOT_RUN: Readonly<Record<string, string>> = {
  'npm test': 'it runs all tests, and would not end',
  'npm run check': 'the same; test/unit/cli.test.ts asks it what it does not know',
  'npm run chaos': 'minutes, and hosts of its own; test/contract/chaos-*.test.ts run what it breaks with',
  'apt-get install openvswitch-switch': 'tests unpack that package: test/hosts/openvswitch.ts',
  'ip link set vms0 master': 'the same words put hosts of tests on their bridge: test/hosts/hosts.ts'
}

/** Benchmarks that take minutes in their smallest size, too: whoever changes them runs them. */
const NOT_STARTED = ['redundancy']

/** What is wrong with how a command is written; undefined: nothing that can be seen without running it. */
const FORM: Readonly<Record<string, (command: string) => string | undefined>> = {
  'npm run bench': wrongOptions,
  'npm run sim': wrongOptions,
  'npm run chaos': command => wrongFor(() => readPlanted(wordsBehind(command)) ?? readOptions(wordsBehind(command))),
  'npm test': command => wordsBehind(command).find(word => word.startsWith('test/') && !existsSync(join(root, word))),
  'npm run check': missingScript
}

/** Pages whose blocks a test types. */
const WALKED: Readonly<Record<string, string>> = {
  'config/tutorial/README.md': 'test/scenarios/tutorial.test.ts',
  'config/operations-guide/README.md': 'test/scenarios/operations-guide.test.ts'
}

/** Only a program's name, as in "`ip` is in Debian's iproute2". */
const isName = (command: string): boolean => /^(?:sudo )?[\w-]+(?: run| compose| -9)?$/.test(command)

/** Undefined: the command line takes it. Else what it says. Nothing is done. `inSentence`: something may be missing. */
async function refused(words: readonly string[], inSentence = false): Promise<string | undefined> {
  const said: string[] = []
  const host = { version: '1', defaultRemote: {}, terminal: {}, scripts: ['demo', 'bench'], print: () => {} }
  const diapause = program({ ...host, printError: (text: string) => said.push(text) } as unknown as CliHost)
  // `diapause snapshot` in a sentence is the name of a command, and not all of what is typed.
  if (isPath(diapause, words)) return undefined
  const idle = (command: Command): void => {
    command.action(() => {})
    for (const option of command.options) option.mandatory &&= !inSentence
    for (const argument of command.registeredArguments) argument.required &&= !inSentence
    command.commands.forEach(idle)
  }
  diapause.commands.forEach(idle)
  return diapause.parseAsync([...words], { from: 'user' }).then(
    () => undefined,
    (error: unknown) => said.join(' ') || String(error)
  )
}

function isPath(command: Command, words: readonly string[]): boolean {
  const [first, ...rest] = words
  if (first === undefined) return true
  const next = command.commands.find(each => each.name() === first)
  return next !== undefined && isPath(next, rest)
}

/** What is typed behind `--`. */
const wordsBehind = (command: string): string[] => example(/ -- (.*)$/.exec(command)?.[1] ?? '')

function wrongFor(parse: () => unknown): string | undefined {
  try {
    parse()
    return undefined
  } catch (error) {
    return messageOf(error)
  }
}

function missingScript(command: string): string | undefined {
  const script = /^npm run ([\w-]+)/.exec(command)?.[1] ?? ''
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: object }
  return Object.hasOwn(scripts, script) ? undefined : `there is no script ${script}`
}

/** What is wrong with a command of `npm run bench` or `npm run sim`; undefined: nothing, or it is neither. */
function wrongOptions(command: string): string | undefined {
  const [, script = '', rest = ''] = /^npm run (bench|sim)(?: -- (.*))?$/.exec(command) ?? []
  const words = example(rest)
  const options = words.filter(word => word.startsWith('--')).map(word => word.slice(2))
  if (script === 'bench' && words[0] !== undefined && words[0] !== 'NAME') {
    const benchmark = benchmarks.get(words[0])
    if (benchmark === undefined) return `there is no benchmark ${words[0]}`
    return options.find(option => option !== 'json' && benchmark.options?.[option] === undefined)
  }
  if (script === 'sim' && !words.includes('NAME')) {
    const name = words[words.indexOf('--scenario') + 1]
    const scenario = words.includes('--scenario') ? scenarios.find(one => one.name === name) : scenarios[0]
    if (scenario === undefined) return `there is no scenario ${name}`
    return options.find(option => !['json', 'scenario'].includes(option) && !(option in scenario.options))
  }
  return undefined
}

describe('commands that READMEs name', () => {
  it('are found, in blocks and in sentences', () => {
    const text = [
      'Type `diapause status` or `npm run diapause -- members',
      'set NAME --votes no`; `kernel` is none.',
      '',
      '    npm run diapause -- vm define FILE \\',
      '        --dry-run   says what would be made',
      '    something else',
      '```sh',
      'diapause keys   # all',
      '```',
      '```text',
      'diapause nothing',
      '```'
    ].join('\n')
    expect(commandsOf('x', text)).toEqual([
      { page: 'x', line: 1, inSentence: true, command: 'diapause status' },
      { page: 'x', line: 1, inSentence: true, command: 'npm run diapause -- members set NAME --votes no' },
      { page: 'x', line: 4, inSentence: false, command: 'npm run diapause -- vm define FILE --dry-run' },
      { page: 'x', line: 8, inSentence: false, command: 'diapause keys' }
    ])
    expect(example(`plan [GROUP] --epoch N --part all|vms --check 'a "b" c'`)).toEqual([
      'plan',
      'GROUP',
      '--epoch',
      '7',
      '--part',
      'all',
      '--check',
      'a "b" c'
    ])
  })

  it('of this program are such that it takes them', async () => {
    const own = named.flatMap(each => {
      const line = ofDiapause(each.command)
      return line === undefined ? [] : [{ ...each, words: example(line) }]
    })
    expect(own.length).toBeGreaterThan(60)
    const findings = await Promise.all(
      own.map(async ({ page, line, command, words, inSentence }) => {
        const says = await refused(words, inSentence)
        return says === undefined ? [] : [`${page}:${line} \`${command}\`: ${says}`]
      })
    )
    expect(findings.flat().join('\n')).toBe('')
    expect(await refused(['snapshot', 'shop', 'now'])).toContain('too many arguments')
    expect(await refused(['snapshots'])).toContain('unknown command')
    expect(await refused(['join', 'TOKEN'])).toContain('required option')
    expect(await refused(['join', 'TOKEN'], true)).toBeUndefined()
    expect(await refused(['join', 'TOKEN', '--nam', 'elm'], true)).toContain('unknown option')
  })

  it('of others are run by somebody whom this test names', () => {
    const others = named.filter(
      ({ page, command }) => ofDiapause(command) === undefined && !isName(command) && !(page in WALKED)
    )
    const beginnings = [...Object.keys(RUN_BY), ...Object.keys(NOT_RUN)]
    const wrong = others.flatMap(({ page, line, command }) => {
      const beginning = beginnings.find(start => command.startsWith(start))
      const says = beginning === undefined ? 'nobody runs it' : FORM[beginning]?.(command)
      return says === undefined ? [] : [`${page}:${line} ${command}: ${says}`]
    })
    expect(wrong.join('\n')).toBe('')
    for (const start of beginnings)
      expect(
        others.some(({ command }) => command.startsWith(start)),
        `nobody names ${start} any more`
      ).toBe(true)
    expect(wrongOptions('npm run bench -- switch --rings 7')).toBe('rings')
    expect(wrongOptions('npm run sim -- --scenario nothing')).toBe('there is no scenario nothing')
    expect(FORM['npm run chaos']?.('npm run chaos -- --hosts 2')).toContain('--hosts takes')
    expect(FORM['npm test']?.('npm test -- test/unit/none.test.ts')).toBe('test/unit/none.test.ts')
    expect(missingScript('npm run nothing')).toBe('there is no script nothing')
  })

  it('that measure are each started by a test, with options that there are', () => {
    const run = programs.map(({ script, words }) => `npm run ${script} -- ${words.join(' ')}`)
    expect(run.flatMap(command => wrongOptions(command) ?? [])).toEqual([])
    const named = (script: string, option?: string): string[] =>
      programs.flatMap(each => {
        if (each.script !== script) return []
        return [each.words[option === undefined ? 0 : each.words.indexOf(option) + 1] ?? '']
      })
    expect(new Set([...named('bench'), ...NOT_STARTED])).toEqual(new Set(benchmarks.keys()))
    expect(new Set(named('sim', '--scenario'))).toEqual(new Set(scenarios.map(({ name }) => name)))
    expect(named('fuzz').length).toBeGreaterThan(0)
  })

  it('of others stand in the tests that are said to run them', () => {
    const walked = Object.entries(WALKED).map(([page, test]) => [test, dirname(page).split('/').at(-1) ?? ''] as const)
    for (const [test, has] of [...Object.values(RUN_BY), ...walked]) {
      expect(test).toMatch(/\.test\.ts$/)
      expect(readFileSync(join(root, test), 'utf8'), `${test} has no ${has}`).toContain(has)
    }
  })
})
