/** `diapause completion SHELL` prints a script for a shell; `complete-words` is what that asks at each Tab. */
import { Argument, type Command } from 'commander'
import { candidates, completionScripts, type NameKind, shells } from './completion.ts'
import type { ApiClient } from './client.ts'

/** A person who pressed Tab waits no longer than this for names. A guess. */
const NAMES_MS = 700

/** `clientOf`: of options as they were typed so far. */
export function completionCommands(
  diapause: Command,
  print: (text: string) => void,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  diapause
    .command('completion')
    .addArgument(new Argument('<shell>', 'whose script').choices(shells))
    .description('print a script that lets a shell complete commands, options and names')
    .addHelpText('after', '\nbash: source <(diapause completion bash)    fish: diapause completion fish | source')
    .option('--json', 'print JSON')
    .action((shell: (typeof shells)[number], { json }: { json?: boolean }) => {
      const script = completionScripts[shell]
      print(json ? JSON.stringify({ shell, script }) : script)
    })
  diapause
    .command('complete-words', { hidden: true })
    .argument('[words...]')
    .action(async (words: readonly string[]) => {
      const found = await candidates(diapause, words, kind => namesOf(kind, words, clientOf))
      if (found.length > 0) print(found.join('\n'))
    })
}

async function namesOf(
  kind: NameKind,
  words: readonly string[],
  clientOf: (options: object) => Promise<ApiClient>
): Promise<readonly string[]> {
  const typed = (option: string): object => {
    const value = words[words.indexOf(`--${option}`) + 1]
    const name = option.replaceAll(/-(.)/g, (_, letter: string) => letter.toUpperCase())
    return words.includes(`--${option}`) && value !== undefined ? { [name]: value } : {}
  }
  const none: readonly string[] = []
  const asked = async (): Promise<readonly string[]> => {
    const named = ['config', 'socket', 'url', 'token-file', 'ca'].map(typed)
    const client = await clientOf(Object.assign({}, ...named) as object)
    if (kind === 'member') return (await client.status()).members.map(({ name }) => name)
    if (kind === 'invitation') {
      const { invites } = await client.members()
      return invites.flatMap(({ id, usedBy }) => (id === undefined || usedBy !== undefined ? [] : [id]))
    }
    const groups = await client.groups()
    return kind === 'group' ? groups.map(({ id }) => id) : groups.flatMap(({ vms }) => vms.map(({ id }) => id))
  }
  const late = new Promise<readonly string[]>(resolve => setTimeout(resolve, NAMES_MS, none).unref())
  // Without a peer there are no names, and nobody to tell why.
  return await Promise.race([asked().catch(() => none), late])
}
