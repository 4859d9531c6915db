/** All commands at once: what each must have, and what shells complete. */
import type { Command } from 'commander'
import { describe, expect, it } from 'vitest'
import { type CliHost, program } from '../../node/edge/cli.ts'
import { candidates, type NameKind } from '../../node/edge/completion.ts'

/** What of the machine a command needs before it runs. */
const host = { version: '1.2.3', scripts: ['demo', 'bench'], defaultRemote: {}, print() {} } as unknown as CliHost
const diapause = program(host)

const leaves = (command: Command, path = ''): [string, Command][] => {
  const inside = diapause
    .createHelp()
    .visibleCommands(command)
    .filter(each => each.name() !== 'help')
  const here: [string, Command][] = path === '' ? [] : [[path, command]]
  const below = inside.flatMap(each => leaves(each, `${path} ${each.name()}`.trim()))
  const actsItself = command.registeredArguments.length > 0 || command.options.length > 0 || inside.length === 0
  return actsItself ? [...here, ...below] : below
}
const all = leaves(diapause)

/** They are other programs, whose --json takes a file. */
const speaksOtherwise = ['demo', 'bench']

describe('every command', () => {
  it('prints JSON where it is asked for it', () => {
    const silent = all.filter(([, { options }]) => !options.some(({ long }) => long === '--json')).map(([path]) => path)
    expect(silent.sort()).toEqual(speaksOtherwise.toSorted())
  })

  it('says what it is for', () => {
    expect(all.filter(([, command]) => command.description() === '').map(([path]) => path)).toEqual([])
  })

  it('stands in the help under what people do with it', () => {
    const headings = diapause
      .createHelp()
      .groupItems([...diapause.commands], [...diapause.commands], each => each.helpGroup() || 'Commands:')
    expect(
      (headings.get('Commands:') ?? []).map(each => each.name()).filter(name => name !== 'complete-words')
    ).toEqual([])
  })
})

describe('a shell', () => {
  const names: Record<NameKind, string[]> = {
    group: ['bank', 'shop'],
    vm: ['vm1', 'vm2'],
    member: ['oak', 'elm'],
    invitation: ['xYz123']
  }
  const complete = (line: string): Promise<string[]> =>
    candidates(diapause, line.split(' '), kind => Promise.resolve(names[kind]))

  it('completes commands, and those within them', async () => {
    expect(await complete('sna')).toEqual(['snapshot'])
    expect(await complete('vm ')).toEqual(expect.arrayContaining(['console', 'define', 'list', 'rm', 'schema']))
    expect(await complete('complete-')).toEqual([])
  })

  it('completes names of groups, VMs and members where they are asked for', async () => {
    expect(await complete('snapshot ')).toEqual(['bank', 'shop'])
    expect(await complete('vm console v')).toEqual(['vm1', 'vm2'])
    expect(await complete('members remove o')).toEqual(['oak'])
    expect(await complete('invite withdraw ')).toEqual(['xYz123'])
    expect(await complete('why vm1 --group s')).toEqual(['shop'])
    expect(await complete('plan --config peer.toml b')).toEqual(['bank'])
  })

  it('completes values of options that can only be some', async () => {
    expect(await complete('tokens new --role ')).toEqual(['admin', 'operate', 'view'])
    expect(await complete('dashboard --role o')).toEqual(['operate'])
    expect(await complete('invite --role ')).toEqual(['storage', 'witness'])
    expect(await complete('members set oak --votes ')).toEqual(['no', 'yes'])
    expect(await complete('policy set bank --policy d')).toEqual(['default', 'delta-size'])
    expect(await complete('policy simulate bank --policy d')).toEqual(['delta-size'])
  })

  it('completes options, and leaves files to itself', async () => {
    expect(await complete('status --w')).toEqual(['--watch'])
    expect(await complete('completion f')).toEqual(['fish'])
    expect(await complete('vm define ')).toEqual([])
    expect(await complete('status --config ')).toEqual([])
  })
})
