/**
 * The commands that pages of documentation name, pure. A command is a line of a block (indented by four blanks, or fenced) or what
 * stands between backticks in a sentence, if its first word is the name of a program. What is said about it stands behind two blanks.
 */

export interface Named {
  readonly page: string
  readonly line: number
  /** In a sentence, which may leave out what the command needs beside what is told of. */
  readonly inSentence: boolean
  /** As it stands there, on one line. */
  readonly command: string
}

/** First words that make a command of a line. A program that is not here is found by nobody: add it. */
const PROGRAMS =
  /^(?:sudo )?(?:\w+=\S+ )*(?:diapause|npm|npx|docker|node|curl|ovs-vsctl|ip|apt-get|systemctl|virsh|git|drill-say|kill|cp|mount|mkdir|chmod|rm)(?: |$)/

export function commandsOf(page: string, text: string): Named[] {
  const lines = text.split('\n')
  const found: Named[] = []
  let fence: string | undefined
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at] ?? ''
    const fenced = /^```(\w*)$/.exec(line)?.[1]
    if (fenced !== undefined) fence = fence === undefined ? fenced : undefined
    else if (fence === 'sh' || (fence === undefined && /^ {4}\S/.test(line))) {
      let command = line.trim()
      const first = at + 1
      while (command.endsWith('\\')) command = `${command.slice(0, -1).trimEnd()} ${(lines[++at] ?? '').trim()}`
      if (PROGRAMS.test(command)) {
        found.push({ page, line: first, inSentence: false, command: withoutWords(command) })
      }
    } else if (fence === undefined) found.push(...inline(page, at, lines))
  }
  return found
}

/** Between backticks, perhaps over the end of a line. */
function inline(page: string, at: number, lines: readonly string[]): Named[] {
  const line = lines[at] ?? ''
  const open = (line.match(/`/g)?.length ?? 0) % 2 === 1
  const text = open ? `${line} ${lines[at + 1] ?? ''}` : line
  return [...text.matchAll(/`([^`]+)`/g)]
    .filter(([, command = '']) => PROGRAMS.test(command))
    .map(([, command = '']) => ({ page, line: at + 1, inSentence: true, command: command.replace(/ {2,}/g, ' ') }))
}

const withoutWords = (command: string): string => command.replace(/(?: {2,}|\s+# ).*$/, '').trim()

/** What is typed behind `diapause`; undefined where the command is another one's. */
export function ofDiapause(command: string): string | undefined {
  const forms = [
    /^(?:\w+=\S+ )*diapause(?: |$)(.*)/,
    /^npm run (?:-s |--silent )?diapause --(?: |$)(.*)/,
    /^npx --package \S+ -- diapause(?: |$)(.*)/,
    /^docker compose .* exec \w+ diapause(?: |$)(.*)/,
    /^docker compose .* run --rm peer (.*)/,
    /^(drill-say .*)/
  ]
  const [rest] = forms.flatMap(form => form.exec(command)?.slice(1) ?? [])
  return rest?.replace(/^drill-say/, 'drill say').replace(/ [|>&].*$/, '')
}

/** As a person would type it: of several possibilities the first, without brackets; for a number a number. */
export function example(line: string): string[] {
  const plain = line
    .replaceAll(/[[\]]/g, '')
    .replaceAll(/(?<=[ =])([\w-]+)(?:\|[\w-]+)+/g, '$1')
    .replaceAll(/(?<![\w'"/=-])(?:N|S|MINUTES|SECONDS)(?!\w)/g, '7')
  return [...plain.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(
    ([, single, double, word]) => single ?? double ?? word ?? ''
  )
}
