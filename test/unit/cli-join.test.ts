import { expect, it } from 'vitest'
import { type CliHost, program } from '../../node/edge/cli.ts'

/** The token with which `diapause join WORD` joins where standard input is `input`. */
async function tokenOf(word: string, input: string): Promise<string> {
  let taken = ''
  const made = { id: 'x', name: 'elm', cluster: 'forest', configFile: '/e/peer.toml' }
  const host = {
    version: '1.2.3',
    scripts: [],
    defaultRemote: {},
    typed: 'diapause',
    print() {},
    readInput: async () => input,
    join: async ({ token }: { token: string }) => {
      taken = token
      return made
    }
  }
  const words = ['join', word, '--name', 'elm', '--data-dir', '/e', '--listen', '/ip4/10.0.0.1/tcp/7400']
  await program(host as unknown as CliHost).parseAsync(words, { from: 'user' })
  return taken
}

it('a token is taken from standard input, where no other user of the host sees it', async () => {
  expect(await tokenOf('-', ' swordfish\n')).toBe('swordfish')
  expect(await tokenOf('given', 'swordfish')).toBe('given')
})
