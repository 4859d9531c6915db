/** What README says of the command line is so. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Command } from 'commander'
import { expect, test } from 'vitest'
import { type CliHost, program } from '../../node/edge/cli.ts'

/** Names of all commands that do something, with those they stand under. */
function commandsOf(parent: Command, before = ''): [string, Command][] {
  return parent.commands.flatMap(command => {
    const name = `${before}${command.name()}`
    const beneath = commandsOf(command, `${name} `)
    return beneath.length === 0 ? [[name, command]] : beneath
  })
}

test('all commands have --json but those that it names, which take a file with it', async () => {
  const text = await readFile(join(import.meta.dirname, '../../README.md'), 'utf8')
  const host = { version: '1', defaultConfigFile: undefined, terminal: {}, scripts: ['demo', 'bench'] }
  const commands = commandsOf(program(host as unknown as CliHost))
  const without = commands.filter(([, command]) => !command.options.some(({ long }) => long === '--json'))
  const named = /All commands have `--json` \((.*?) take `--json FILE`\)/s.exec(text)?.[1] ?? ''
  const quoted = [...named.matchAll(/`([^`]+)`/g)].map(([, name]) => name)
  const found = without.map(([name]) => name).filter(name => name !== 'complete-words')
  expect(new Set(quoted)).toEqual(new Set(found))
})

test('it installs a package that nobody has published from a file', async () => {
  const [text, manifest] = await Promise.all(
    ['README.md', 'package.json'].map(file => readFile(join(import.meta.dirname, '../..', file), 'utf8'))
  )
  // Nothing keeps its owner from publishing it; until somebody has, no command of README may count on it.
  expect(JSON.parse(manifest ?? '')).not.toHaveProperty('private')
  expect(text).not.toMatch(/`npx diapause/)
  expect(text).toMatch(/npm install --global \.\/diapause-[\d.]+\.tgz/)
})
