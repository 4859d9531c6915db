/**
 * What a shell may go on with after the words that were typed: commands and options from the program itself, names of groups, VMs,
 * members and invitations from the peer. The scripts ask `diapause complete-words` for it, so they never grow old.
 */
import type { Command, Option } from 'commander'

export type NameKind = 'group' | 'vm' | 'member' | 'invitation'
export type NamesOf = (kind: NameKind) => Promise<readonly string[]>

/** By the names of arguments and of options' values. Others are files, or the person's own. */
const kinds: Readonly<Record<string, readonly NameKind[]>> = {
  group: ['group'],
  vm: ['vm'],
  member: ['member'],
  peer: ['member'],
  invitation: ['invitation'],
  name: ['group', 'vm'],
  '--group': ['group'],
  '--host': ['member'],
  '--owner': ['member'],
  '--replace': ['member']
}

/** `words`: those after the program's name, the last one as far as it was typed. None: the shell offers files. */
export async function candidates(program: Command, words: readonly string[], namesOf: NamesOf): Promise<string[]> {
  const typed = words.at(-1) ?? ''
  const { command, given, valueOf } = walk(program, words.slice(0, -1))
  const named = async (name: string): Promise<string[]> => (await Promise.all((kinds[name] ?? []).map(namesOf))).flat()
  const found = await (valueOf === undefined ? all() : valuesOf(valueOf))
  return [...new Set(found)].filter(word => word.startsWith(typed)).sort()

  async function valuesOf(option: Option): Promise<string[]> {
    return [...(option.argChoices ?? []), ...(await named(option.long ?? ''))]
  }

  async function all(): Promise<string[]> {
    if (typed.startsWith('-')) {
      const options = command.options.filter(({ hidden }) => !hidden)
      return [...options.flatMap(({ long }) => (long ? [long] : [])), '--help']
    }
    const argument = command.registeredArguments[given]
    const inside =
      given === 0
        ? command
            .createHelp()
            .visibleCommands(command)
            .map(each => each.name())
        : []
    return [...inside, ...(argument?.argChoices ?? []), ...(argument === undefined ? [] : await named(argument.name()))]
  }
}

/** `given`: arguments of `command` that stand there. `valueOf`: the option whose value is typed now. */
function walk(program: Command, words: readonly string[]) {
  let command = program
  let given = 0
  let valueOf: Option | undefined
  for (const word of words) {
    if (valueOf !== undefined) {
      valueOf = undefined
      continue
    }
    if (word.startsWith('-')) {
      const option = command.options.find(({ long, short }) => long === word || short === word)
      if (option?.required === true) valueOf = option
      continue
    }
    const inside = given === 0 ? command.commands.find(each => each.name() === word) : undefined
    if (inside === undefined) given++
    else command = inside
  }
  return { command, given, valueOf }
}

export const shells = ['bash', 'zsh', 'fish'] as const

/** To be read by the shell: `source <(diapause completion bash)`. */
export const completionScripts: Readonly<Record<(typeof shells)[number], string>> = {
  bash: `# source <(diapause completion bash)
_diapause() {
  local IFS=$'\\n'
  COMPREPLY=($(diapause complete-words -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _diapause diapause`,
  zsh: `#compdef diapause
# source <(diapause completion zsh)
_diapause() {
  local -a found
  found=("\${(@f)$(diapause complete-words -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n $found[1] ]]; then compadd -a found; else _files; fi
}
compdef _diapause diapause`,
  fish: `# diapause completion fish | source
complete -c diapause -k -a '(diapause complete-words -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'`
}
